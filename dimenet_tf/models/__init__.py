"""One file an architecture; `MODELS` names them."""

from __future__ import annotations

import tensorflow as tf

from dimenet_tf.models.dimenet import DimeNet
from dimenet_tf.models.dimenet_pp import DimeNetPP
from dimenet_tf.models.dpgn import DPGN
from dimenet_tf.models.gemnet import GemNet
from dimenet_tf.models.painn import PaiNN
from dimenet_tf.models.spherenet import SphereNet

MODELS: dict[str, type[tf.keras.Model]] = {
    "dimenet": DimeNet,
    "dimenet_pp": DimeNetPP,
    "dpgn": DPGN,
    "gemnet": GemNet,
    "painn": PaiNN,
    "spherenet": SphereNet,
}


def build_model(name: str, dtype: str = "float32", **hyperparameters) -> tf.keras.Model:
    """Make a model with its weights.

    Parameters
    ----------
    name : a key of `MODELS`
    dtype : "float32", "float64" or "mixed_bfloat16"
    **hyperparameters : the model's constructor arguments

    Returns
    -------
    Keras model, `model(graph) -> AtomOutputs`
    """
    if name not in MODELS:
        raise ValueError(f"model.name: '{name}' is none of {', '.join(MODELS)}")
    model = MODELS[name](dtype=dtype, **hyperparameters)
    model.make_weights()
    return model
