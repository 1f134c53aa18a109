"""Bilinear layer and symmetric messages of GemNet."""

import numpy as np
import tensorflow as tf

from dimenet_tf.layers.messages import EfficientBilinear, Settings, UpProjection
from dimenet_tf.layers.scaled import scaled_swish
from dimenet_tf.models import build_model
from dimenet_tf.models.gemnet import GemNet
from dimenet_tf.models.hyperparameters import hyperparameters
from helpers.models import SMALL, graph_of
from helpers.molecules import molecules

DEFAULTS = hyperparameters(GemNet)
SETTINGS = Settings(**{field: DEFAULTS[field] for field in Settings._fields})


def test_bilinear_layer():
    x, layer = (
        tf.constant(np.random.default_rng(0).standard_normal((5, 3, 4))),
        EfficientBilinear(2, 1, dtype="float64"),
    )
    np.testing.assert_allclose(layer(x), tf.einsum("fbo,ebf->eo", layer.kernel, x), rtol=1e-11)


def test_an_edge_and_its_reverse_share_their_messages():
    """With the two kernels exchanged, each edge has the message of its reverse."""
    graph = graph_of(*molecules("H2O"), build_model("gemnet", **SMALL["gemnet"])).to_tensors()
    layer = UpProjection(3, SETTINGS, iter([1, 2]), dtype="float64")
    x = tf.constant(np.random.default_rng(0).standard_normal((len(graph.edge_target), 4)))
    y = layer(x, graph).numpy()
    ca, ac = (scaled_swish(x @ half.kernel).numpy() for half in (layer.ca, layer.ac))
    np.testing.assert_allclose(y, (ca + ac[graph.edge_reverse]) / np.sqrt(2), rtol=1e-11)
    layer.ca, layer.ac = layer.ac, layer.ca
    np.testing.assert_allclose(layer(x, graph), y[graph.edge_reverse], rtol=1e-11)


def test_without_symmetry_an_edge_has_its_own_message():
    layer = UpProjection(3, SETTINGS._replace(symmetric=False, bias=True), iter([1, 2]), dtype="float64")
    x = tf.constant(np.random.default_rng(0).standard_normal((5, 4)))
    np.testing.assert_allclose(layer(x, None), scaled_swish(x @ layer.ca.kernel + layer.ca.bias), rtol=1e-11)
    assert layer.ac is None
