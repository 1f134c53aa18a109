"""Readers of published weights."""

from dimenet_tf.interop.dimenet import load_dimenet_checkpoint
from dimenet_tf.interop.gemnet import load_gemnet_checkpoint, load_gemnet_state_dict
from dimenet_tf.interop.painn import load_schnetpack_painn

__all__ = ["load_dimenet_checkpoint", "load_gemnet_checkpoint", "load_gemnet_state_dict", "load_schnetpack_painn"]
