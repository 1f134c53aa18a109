import numpy as np
import pytest

from dimenet_tf.graph import GraphStore, find_edges, find_reverse, find_triplets, neighbor_table, neighbors

RNG = np.random.default_rng(0)


def cloud(n: int, dtype="float32") -> np.ndarray:
    return RNG.uniform(0, 1.6 * n ** (1 / 3), (n, 3)).astype(dtype)


def connect(positions, cutoff=2.5):
    source, target = find_edges(positions, cutoff)
    return source, target, find_reverse(source, target)


@pytest.mark.parametrize("n", [0, 1, 2, 30])
def test_edges_are_all_pairs_within_the_cutoff(n):
    positions = cloud(n)
    source, target = find_edges(positions, 2.5)
    expected = [
        (j, i)
        for i in range(n)
        for j in range(n)
        if i != j and np.linalg.norm(positions[i] - positions[j]) <= np.float32(2.5)
    ]
    assert list(zip(source, target)) == expected


def test_pair_at_exactly_the_cutoff_is_an_edge():
    cutoff = np.float32(1.7)
    positions = np.array([[0, 0, 0], [cutoff, 0, 0]], np.float32)
    assert len(find_edges(positions, 1.7)[0]) == 2
    positions[1, 0] = np.nextafter(cutoff, np.float32(2))
    assert len(find_edges(positions, 1.7)[0]) == 0


def test_tree_finds_what_all_pairs_find(monkeypatch):
    positions = cloud(700)
    with_tree = find_edges(positions, 3.0)
    monkeypatch.setattr(neighbors, "ALL_PAIRS_LIMIT", 10**6)
    np.testing.assert_array_equal(with_tree, find_edges(positions, 3.0))


def test_nothing_is_capped():
    positions = RNG.uniform(0, 1, (120, 3))
    assert len(find_edges(positions, 5.0)[0]) == 120 * 119


def test_reverse():
    source, target, reverse = connect(cloud(40))
    np.testing.assert_array_equal(source[reverse], target)
    np.testing.assert_array_equal(target[reverse], source)


def test_triplets_are_all_pairs_of_edges_that_do_not_return():
    source, target, reverse = connect(cloud(20))
    kj, ji = find_triplets(source, target, reverse, 20)
    expected = [
        (a, b)
        for b in range(len(source))
        for a in range(len(source))
        if target[a] == source[b] and source[a] != target[b]
    ]
    assert list(zip(kj, ji)) == expected


def test_neighbor_table_lists_the_edges_of_each_atom():
    positions = np.concatenate([cloud(20), [[100, 0, 0]]])  # the last atom is alone
    _, target, _ = connect(positions)
    table = neighbor_table(target, 21)
    for atom, row in enumerate(table):
        np.testing.assert_array_equal(row[row >= 0], np.flatnonzero(target == atom))
    assert (table[20] == -1).all()


def test_batch_is_the_graph_of_all_molecules_together():
    sizes = [3, 1, 12, 2]
    parts = [cloud(n) + 50 * i for i, n in enumerate(sizes)]  # far apart: one cloud of four islands
    numbers = RNG.integers(1, 9, sum(sizes))
    store = GraphStore(sizes, numbers, np.concatenate(parts), 2.5, ("atom_edges", "triplets"))
    whole = GraphStore([sum(sizes)], numbers, np.concatenate(parts), 2.5, ("atom_edges", "triplets")).batch([0])
    batch = store.batch([0, 1, 2, 3])
    for field in batch._fields:
        if field not in ("molecule_of_atom", "num_atoms"):
            np.testing.assert_array_equal(getattr(batch, field), getattr(whole, field), err_msg=field)
    np.testing.assert_array_equal(batch.molecule_of_atom, np.repeat([0, 1, 2, 3], sizes))
    assert store.sizes("triplets").sum() == len(batch.triplet_kj)
    assert store.sizes("edges").sum() == len(batch.edge_source)
    assert store.sizes("atoms").tolist() == sizes


def test_order_of_molecules_is_kept():
    store = GraphStore([2, 3], [1, 1, 6, 7, 8], cloud(5), 5.0)
    assert store.batch([1, 0]).atomic_numbers.tolist() == [6, 7, 8, 1, 1]


def test_arrays_that_are_not_needed_are_empty():
    graph = GraphStore([3], [1, 1, 8], cloud(3), 5.0, needs=()).batch([0])
    assert graph.atom_edges.size == graph.triplet_kj.size == graph.triplet_ji.size == 0
