"""Refuse `python -m dimenet_tf.plots`, which was a command before `dimenet-tf plot`."""

raise SystemExit("error: python -m dimenet_tf.plots is no longer a command; use: dimenet-tf plot")
