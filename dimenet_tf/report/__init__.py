"""One HTML page about a training run; `dimenet_tf.report.page.write_report` makes it."""
