"""Gathers, sums over segments and padded slots of edges."""

import numpy as np
import pytest
import tensorflow as tf

from dimenet_tf.layers.gathers import NeighborSlots, gather, rearrange, reverse_edges, segment_sum
from dimenet_tf.models import build_model
from helpers.models import SMALL, graph_of
from helpers.molecules import molecules
from helpers.numerics import derivatives


def test_gathers_and_their_derivatives_are_tensorflows():
    model = build_model("dimenet", dtype="float64", **SMALL["dimenet"])
    graph = graph_of(*molecules("CH3CH2OH", "H2", "H", "C6H6"), model)
    target, reverse, atoms = graph.edge_target, graph.edge_reverse, len(graph.atomic_numbers)
    rng = np.random.default_rng(0)
    x, weights = (tf.constant(rng.standard_normal((len(target), 3))) for _ in range(2))
    slots, table = NeighborSlots(graph), np.maximum(graph.atom_edges, 0)
    used = tf.cast(slots.used, x.dtype)[..., None]
    pairs = [
        (lambda x: segment_sum(x, target, atoms), lambda x: tf.math.unsorted_segment_sum(x, target, atoms)),
        (lambda x: gather(x, target), lambda x: tf.gather(x, target)),
        (lambda x: reverse_edges(x, reverse), lambda x: tf.gather(x, reverse)),
        (lambda x: slots.pad(x) * used, lambda x: tf.gather(x, table) * used),
        (lambda x: slots.unpad(slots.pad(x) ** 2 * used), lambda x: x**2),
    ]
    for functions in pairs:
        ours, theirs = (derivatives(lambda x, f=f: tf.reduce_sum(f(weights * x) ** 4), x, 2) for f in functions)
        for a, b in zip(ours, theirs):
            np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("dtype", ["bfloat16", "float32", "float64"])
def test_sums_of_segments(dtype):
    """Segments in any order, one of them empty."""
    x = tf.constant([[1.0, 2.0], [4.0, 8.0], [16.0, 32.0]], dtype)
    total = segment_sum(x, tf.constant([2, 0, 2]), 4)
    assert total.dtype == dtype
    assert tf.cast(total, tf.float64).numpy().tolist() == [[4, 8], [0, 0], [17, 34], [0, 0]]


def test_rows_taken_twice_add_their_gradients():
    x, upstream = tf.constant([1.0, 2.0, 3.0]), tf.constant([10.0, 20.0, 40.0])
    with tf.GradientTape() as tape:
        tape.watch(x)
        taken = gather(x, tf.constant([2, 0, 2]))
    assert taken.numpy().tolist() == [3, 1, 3]
    assert tape.gradient(taken, x, upstream).numpy().tolist() == [20, 0, 50]


def test_gradient_of_a_rearrangement():
    order, back = tf.constant([2, 0, 1]), tf.constant([1, 2, 0])
    x, upstream = tf.constant([1.0, 2.0, 3.0]), tf.constant([10.0, 20.0, 40.0])
    with tf.GradientTape() as tape:
        tape.watch(x)
        rearranged = rearrange(x, order, back)
    assert rearranged.numpy().tolist() == [3, 1, 2]
    assert tape.gradient(rearranged, x, upstream).numpy().tolist() == [20, 40, 10]


def test_every_edge_has_one_slot():
    model = build_model("dimenet", **SMALL["dimenet"])
    graph = graph_of(*molecules("H2O", "H", "CO2"), model).to_tensors()
    slots, edges = NeighborSlots(graph), tf.range(len(graph.edge_source))
    atoms = tf.where(slots.used)[:, 0].numpy()
    np.testing.assert_array_equal(slots.pad(edges)[slots.used], edges)
    np.testing.assert_array_equal(atoms, graph.edge_target)
    np.testing.assert_array_equal(slots.unpad(slots.pad(edges)), edges)
