"""Readers of published weights."""

from dimenet_tf.interop.dimenet import load_dimenet_checkpoint

__all__ = ["load_dimenet_checkpoint"]
