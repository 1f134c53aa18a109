"""Readers of published weights."""

from dimenet_tf.interop.dimenet import load_dimenet_checkpoint
from dimenet_tf.interop.gemnet import load_gemnet_checkpoint, load_gemnet_state_dict

__all__ = ["load_dimenet_checkpoint", "load_gemnet_checkpoint", "load_gemnet_state_dict"]
