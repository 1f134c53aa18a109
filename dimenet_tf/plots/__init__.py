"""Pictures of runs and models; `dimenet-tf plot` draws them."""

from dimenet_tf.plots.runs import learning_curve, parity, table

__all__ = ["learning_curve", "parity", "table"]
