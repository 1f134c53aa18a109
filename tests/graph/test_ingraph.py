"""Graphs made by TensorFlow are those of the host, array by array."""

import numpy as np
import pytest
import tensorflow as tf

from dimenet_tf.graph import GraphStore, build_graph_tensorflow, find_edges_tensorflow, ingraph
from helpers.molecules import molecules

ALL = {"atom_edges", "triplets"}


def build(N, Z, R, cutoff=5.0, needs=ALL, dtype="float32"):
    numbers, num_atoms = (tf.constant(a, tf.int32) for a in (Z, N))
    positions = tf.cast(ingraph.center(tf.constant(R), num_atoms)[0], dtype)
    edges = find_edges_tensorflow(positions, num_atoms, cutoff)
    return build_graph_tensorflow(numbers, positions, num_atoms, edges, cutoff, needs)


def assert_same(ours, theirs):
    for name, a, b in zip(theirs._fields, ours, theirs):
        if name == "positions":  # centroids are sums, which each side makes in an order of its own
            np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-9, err_msg=name)
        else:
            np.testing.assert_array_equal(a, b, err_msg=name)
        assert type(a) is type(b) is tuple or a.dtype.as_numpy_dtype == b.dtype, name


def random_batch(seed, sizes):
    rng = np.random.default_rng(seed)
    N = np.array(sizes)
    return N, rng.integers(1, 10, N.sum()), rng.uniform(0, 2.5 * N.max() ** (1 / 3), (N.sum(), 3))


def test_atoms_in_many_cells_and_far_from_the_origin():
    """Beyond some 20 000 Angstrom all share the outermost cells."""
    rng = np.random.default_rng(0)
    N = np.array([400, 1, 50])
    Z, R = np.ones(N.sum(), int), rng.uniform(-12, 12, (N.sum(), 3))
    for shift in ([0, 0, 0], [-3e4, 0, 5.0], [20474.9, -20475.1, 1e6]):  # the last cell there is begins at 20470
        host = GraphStore(N, Z, R + shift, 5.0, ALL, "float64").batch(range(3))
        assert len(host.edge_source) > 5000
        assert_same(build(N, Z, R + shift, dtype="float64"), host)
    edges = find_edges_tensorflow(tf.zeros([0, 3]), tf.zeros([0], tf.int32), 5.0)
    assert [index.shape for index in edges[:3]] == [(0,)] * 3


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("needs", [ALL, {"atom_edges"}, set()])
@pytest.mark.parametrize("sizes", [[1], [9], [1, 1, 1], [3, 1, 12, 7, 1], [40, 2], [25] * 8])
def test_random_molecules(sizes, needs, dtype):
    for seed in range(3):
        batch = random_batch(seed, sizes)
        host = GraphStore(*batch, 3.5, needs, dtype).batch(range(len(sizes)))
        assert_same(build(*batch, 3.5, needs, dtype), host)


def test_real_molecules_and_the_compiled_function():
    traces = []

    @tf.function(
        input_signature=[
            tf.TensorSpec([None], tf.int32),
            tf.TensorSpec([None], tf.int32),
            tf.TensorSpec([None, 3], tf.float32),
        ]
    )
    def compiled(N, Z, R):
        traces.append(1)
        R = tf.cast(ingraph.center(R, N)[0], R.dtype)
        return build_graph_tensorflow(Z, R, N, find_edges_tensorflow(R, N, 5.0), 5.0, ALL)

    for names in (["CH3CH2OH"], ["H"], ["C6H6", "H", "CO2"]):
        N, Z, R = molecules(*names)
        ours = compiled(*(tf.constant(a, t) for a, t in ((N, tf.int32), (Z, tf.int32), (R, tf.float32))))
        assert_same(ours, GraphStore(N, Z, R, 5.0, ALL).batch(range(len(names))))
    assert len(traces) == 1


def test_pairs_at_the_cutoff_are_the_hosts():
    """Distances that round to the cutoff or next to it."""
    rng = np.random.default_rng(0)
    directions = rng.normal(size=(2000, 3))
    directions *= 5.0 / np.linalg.norm(directions, axis=1)[:, None]
    R = np.stack([rng.normal(size=(2000, 3)), np.zeros((2000, 3))], axis=1)
    R[:, 1] = R[:, 0] + directions
    batch = np.full(2000, 2), np.ones(4000, int), R.reshape(-1, 3)
    host = GraphStore(*batch, 5.0, set()).batch(range(2000))
    assert 0 < len(host.edge_source) < 4000
    assert_same(build(*batch, needs=set()), host)


def test_padded_molecules():
    Z = tf.constant([[8, 1, 1, 0], [1, 0, 0, 0], [6, 8, 8, 1]])
    R = tf.random.normal([3, 4, 3], seed=0)
    numbers, positions, num_atoms = ingraph.unpad(Z, R)
    assert numbers.numpy().tolist() == [8, 1, 1, 1, 6, 8, 8, 1] and num_atoms.numpy().tolist() == [3, 1, 4]
    again = ingraph.pad(positions, Z).numpy()
    np.testing.assert_array_equal(again, R * (Z.numpy() != 0)[..., None])


def test_edges_of_a_client_in_any_order_and_with_a_skin():
    batch = random_batch(0, [20, 1, 9])
    wide = GraphStore(*batch, 4.0, ALL).batch(range(3))
    order = np.random.default_rng(1).permutation(len(wide.edge_source))
    num_atoms, R = tf.constant(batch[0], tf.int32), tf.constant(wide.positions)
    source, target = (tf.constant(a[order]) for a in (wide.edge_source, wide.edge_target))
    edges = ingraph.sort_edges(source, target, R, num_atoms, 3.5)
    ours = build_graph_tensorflow(tf.constant(batch[1], tf.int32), R, num_atoms, edges, 3.5, ALL)
    assert_same(ours, GraphStore(*batch, 3.5, ALL).batch(range(3)))


def refused(message, call, *arguments):
    with pytest.raises(tf.errors.InvalidArgumentError, match=f"(?s){message}"):
        call(*arguments)


def test_wrong_edges_are_refused():
    R, num_atoms = tf.constant([[0.0, 0, 0], [1, 0, 0], [0, 1, 0]]), tf.constant([2, 1])

    def sort(source, target):
        return ingraph.sort_edges(tf.constant(source), tf.constant(target), R, num_atoms, 5.0)

    assert sort([0, 1], [1, 0])[2].numpy().tolist() == [1, 0]
    refused("one direction only", sort, [0], [1])
    refused("given twice", sort, [0, 0, 1], [1, 1, 0])
    refused("to itself: edge.*1", sort, [0, 1], [1, 1])
    refused("joins two molecules", sort, [0, 2], [2, 0])
    refused("does not exist: edge.*0", sort, [3], [0])
    refused("differ in length", sort, [0, 1], [1])


def test_wrong_molecules_are_refused():
    def check(Z, R, N, elements=(1, 8), max_atoms=10):
        Z, R, N = tf.constant(Z, tf.int32), tf.constant(R, tf.float32), tf.constant(N, tf.int32)
        Z, R, N = ingraph.check_atoms(Z, R, N, elements, max_atoms)
        R = tf.cast(ingraph.center(R, N)[0], tf.float32)
        return ingraph.check_distances(Z, R, N, find_edges_tensorflow(R, N, 5.0), 5.0)

    water = np.random.default_rng(0).normal(size=(3, 3))
    check([8, 1, 1], water, [3])
    refused("element that the training data did not contain: molecule.*1", check, [8, 1, 6], water, [2, 1])
    refused("element", check, [8, 1, 200], water, [3])
    refused("element", check, [8, 1, -1], water, [3])
    refused("not finite: molecule.*0", check, [8, 1, 1], water * [1, np.nan, 1], [3])
    refused("not finite", check, [8, 1, 1], water * [1, np.inf, 1], [3])
    close = "two atoms are closer than 0.3 Ang: molecule.*1"
    refused(close, check, [8, 1, 1], np.array([[0, 0, 0], [1, 1, 1], [1, 1, 1]]), [1, 2])
    refused(close, check, [8, 1, 1], np.array([[0, 0, 0], [1, 1, 1], [1, 1, 1.29]]), [1, 2])
    check([8, 1, 1], np.array([[0, 0, 0], [1, 1, 1], [1, 1, 1.31]]), [1, 2])
    refused("32 Ang from the origin, where float32 cuts positions: molecule.*0", check, [8, 1, 1], water + 1e3, [3])
    check([8, 1, 1], water * 40, [3])  # as large as it is far
    line = np.arange(6.0)[:, None] * [1, 0, 0]
    refused("no two of its atoms are within 5 Ang; is R in Angstrom", check, [8] * 6, 6 * line, [6])
    check([8] * 3, 6 * line[:3], [3])  # three atoms may be far apart
    pairs = [[x, y, z] for y, z in ((0, 0), (4, 0), (0, 4)) for x in (0, 1.25)]  # H2 in Bohr would be 1.40 long
    refused("as if R were in a0", check, [1] * 6, pairs, [6])
    refused("a molecule has no atoms: molecule.*1", check, [8, 1, 1], water, [3, 0])
    refused("holds no molecules", check, np.zeros(0), np.zeros((0, 3)), np.zeros(0))
    refused("more than 2 atoms", lambda: check([8, 1, 1], water, [3], max_atoms=2))
    refused("Z = 0 is padding.*molecule.*1", ingraph.unpad, tf.constant([[8, 1], [0, 1]]), tf.zeros([2, 2, 3]))
    refused("shapes differ in axis.*1", ingraph.unpad, tf.zeros([2, 3], tf.int32), tf.zeros([2, 2, 3]))
    refused("must ascend", ingraph.count_atoms, tf.constant([0, 1, 0]))
    refused("must begin with 0", ingraph.count_atoms, tf.constant([-1, 1, 2]))
