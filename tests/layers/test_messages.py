"""Bilinear layer and symmetric messages of GemNet."""

import numpy as np
import tensorflow as tf

from dimenet_tf.layers.messages import EfficientBilinear, SymmetricUpProjection
from dimenet_tf.layers.scaled import scaled_swish
from dimenet_tf.models import build_model
from helpers.models import SMALL, graph_of
from helpers.molecules import molecules


def test_bilinear_layer():
    x, layer = (
        tf.constant(np.random.default_rng(0).standard_normal((5, 3, 4))),
        EfficientBilinear(2, 1, dtype="float64"),
    )
    np.testing.assert_allclose(layer(x), tf.einsum("fbo,ebf->eo", layer.kernel, x), rtol=1e-11)


def test_an_edge_and_its_reverse_share_their_messages():
    """With the two kernels exchanged, each edge has the message of its reverse."""
    graph = graph_of(*molecules("H2O"), build_model("gemnet", **SMALL["gemnet"])).to_tensors()
    layer = SymmetricUpProjection(3, iter([1, 2]), dtype="float64")
    x = tf.constant(np.random.default_rng(0).standard_normal((len(graph.edge_target), 4)))
    y = layer(x, graph).numpy()
    ca, ac = (scaled_swish(x @ half.kernel).numpy() for half in (layer.ca, layer.ac))
    np.testing.assert_allclose(y, (ca + ac[graph.edge_reverse]) / np.sqrt(2), rtol=1e-11)
    layer.ca, layer.ac = layer.ac, layer.ca
    np.testing.assert_allclose(layer(x, graph), y[graph.edge_reverse], rtol=1e-11)
