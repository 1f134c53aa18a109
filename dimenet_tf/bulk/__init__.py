"""Predictions for files of any size, in constant memory, in several processes, and resumed after an interruption."""

from dimenet_tf.bulk.run import predict_file

__all__ = ["predict_file"]
