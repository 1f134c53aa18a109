"""Pictures of runs and models; `python -m dimenet_tf.plots` draws them."""

from dimenet_tf.plots.runs import learning_curve, parity, table

__all__ = ["learning_curve", "parity", "table"]
