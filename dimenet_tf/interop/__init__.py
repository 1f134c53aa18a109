"""Readers of published weights."""

from dimenet_tf.interop.dimenet import load_dimenet_checkpoint
from dimenet_tf.interop.gemnet import load_gemnet_checkpoint, load_gemnet_state_dict
from dimenet_tf.interop.oc20 import load_oc20_checkpoint
from dimenet_tf.interop.schnetpack import load_schnetpack
from dimenet_tf.interop.spherenet import load_dig_spherenet

__all__ = [
    "load_dig_spherenet",
    "load_dimenet_checkpoint",
    "load_gemnet_checkpoint",
    "load_gemnet_state_dict",
    "load_oc20_checkpoint",
    "load_schnetpack",
]
