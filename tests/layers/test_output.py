"""Outputs of atoms."""

import numpy as np
import pytest
import tensorflow as tf

from dimenet_tf.layers.activation import swish
from dimenet_tf.layers.output import OutputBlock, SeparateOutputBlocks, atom_outputs
from dimenet_tf.models import build_model
from helpers.models import SMALL, graph_of
from helpers.molecules import molecules


@pytest.fixture(scope="module")
def inputs() -> tuple:
    """Messages, a radial basis, and the graph of their edges."""
    graph = graph_of(*molecules("H2O", "H", "CO2"), build_model("dimenet", **SMALL["dimenet"])).to_tensors()
    rng, edges = np.random.default_rng(0), len(graph.edge_target)
    return tf.constant(rng.standard_normal((edges, 6))), tf.constant(rng.standard_normal((edges, 3))), graph


def by_hand(block: OutputBlock, m: tf.Tensor, rbf: tf.Tensor, graph) -> np.ndarray:
    h = np.zeros((len(graph.atomic_numbers), block.emb_size))
    np.add.at(h, graph.edge_target, rbf @ block.dense_rbf.kernel * m)
    if block.up_projection is not None:
        h = h @ block.up_projection.kernel.numpy() + (block.up_projection.bias.numpy() if block.up_bias else 0)
    for layer in block.dense_layers:
        h = swish(h @ layer.kernel + layer.bias).numpy()
    return h @ block.dense_final.kernel.numpy()


@pytest.mark.parametrize(
    "options", [{}, {"out_emb_size": 8}, {"out_emb_size": 8, "up_bias": True}, {"recompute": True}]
)
def test_output_block(inputs, options):
    block = OutputBlock(6, 2, 4, "GlorotOrthogonal", seed=1, dtype="float64", **options)
    block(*inputs)
    for layer in (*block.dense_layers, *([block.up_projection] if options.get("up_bias") else [])):
        layer.bias.assign(np.linspace(-1, 1, layer.units))
    np.testing.assert_allclose(block(*inputs), by_hand(block, *inputs), rtol=1e-11, atol=1e-12)


def test_one_block_for_each_target(inputs):
    blocks = SeparateOutputBlocks(
        3, seed=1, emb_size=6, num_dense_output=1, output_init="GlorotOrthogonal", dtype="float64"
    )
    columns = blocks(*inputs).numpy()
    for block, column in zip(blocks.blocks, columns.T):
        np.testing.assert_allclose(block(*inputs)[:, 0], column, rtol=1e-12)
    assert columns.shape[1] == 3 and not np.allclose(columns[:, 0], columns[:, 1])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_outputs_that_a_model_lacks_are_empty(dtype):
    outputs = atom_outputs(tf.ones([5, 2], dtype))
    assert [tuple(array.shape) for array in outputs] == [(5, 2), (5, 0, 3), (0, 2, 3), (0,)]
    assert {array.dtype for array in outputs} == {tf.as_dtype(dtype)}
