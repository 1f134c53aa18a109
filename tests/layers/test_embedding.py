"""First messages."""

import numpy as np
import pytest
import tensorflow as tf

from dimenet_tf.layers.activation import swish
from dimenet_tf.layers.embedding import AtomEmbedding, EmbeddingBlock
from dimenet_tf.models import build_model
from helpers.models import SMALL, graph_of
from helpers.molecules import molecules


def test_table_of_atoms():
    layer = AtomEmbedding(4, seed=1)
    table = layer.embeddings.numpy()
    assert table.shape == (95, 4) and table.dtype == np.float32
    assert 1.5 < np.abs(table).max() <= np.sqrt(3) and table.var() == pytest.approx(1, abs=0.15)
    np.testing.assert_array_equal(layer(tf.constant([8, 1, 8])), table[[8, 1, 8]])


@pytest.mark.parametrize("activate_rbf", [False, True])
def test_first_messages(activate_rbf):
    """The order is target, source, distance."""
    graph = graph_of(*molecules("H2O"), build_model("dimenet", **SMALL["dimenet"])).to_tensors()
    rbf = tf.constant(np.random.default_rng(0).standard_normal((len(graph.edge_target), 3)))
    block = EmbeddingBlock(4, activate_rbf, seed=1, dtype="float64")
    block(rbf, graph)
    of_atom = block.embeddings.numpy()[graph.atomic_numbers]
    distance = rbf @ block.dense_rbf.kernel
    distance = swish(distance) if activate_rbf else distance
    everything = np.concatenate([of_atom[graph.edge_target], of_atom[graph.edge_source], distance], axis=1)
    np.testing.assert_allclose(block(rbf, graph), swish(everything @ block.dense.kernel), rtol=1e-11)
