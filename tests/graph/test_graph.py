import ast

import numpy as np
import pytest
import tensorflow as tf

from dimenet_tf.errors import UserError
from dimenet_tf.graph import (
    GraphStore,
    SkinList,
    build_graph_tensorflow,
    build_numpy,
    check_needs,
    find_edges,
    find_edges_tensorflow,
    find_reverse,
    find_triplets,
    graph_signature,
    neighbor_table,
)
from helpers.molecules import molecules
from helpers.paths import PACKAGE

RNG = np.random.default_rng(0)


def cloud(n: int, dtype="float32") -> np.ndarray:
    return RNG.uniform(0, 1.6 * n ** (1 / 3), (n, 3)).astype(dtype)


def connect(positions, cutoff=2.5):
    source, target, _ = find_edges(positions, cutoff)
    return source, target, find_reverse(source, target)


@pytest.mark.parametrize("n", [0, 1, 2, 30])
def test_edges_are_all_pairs_within_the_cutoff(n):
    positions = cloud(n)
    source, target, _ = find_edges(positions, 2.5)
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
    monkeypatch.setattr(build_numpy, "ALL_PAIRS_LIMIT", 10**6)
    np.testing.assert_array_equal(with_tree[:2], find_edges(positions, 3.0)[:2])


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
        if field not in ("positions", "molecule_of_atom", "num_atoms"):
            np.testing.assert_array_equal(getattr(batch, field), getattr(whole, field), err_msg=field)
    np.testing.assert_array_equal(batch.molecule_of_atom, np.repeat([0, 1, 2, 3], sizes))
    centered = np.concatenate([part - part.mean(axis=0, dtype=np.float64) for part in parts])
    np.testing.assert_allclose(batch.positions, centered, atol=1e-6)
    assert store.sizes("triplets").sum() == len(batch.triplet_kj)
    assert store.sizes("edges").sum() == len(batch.edge_source)
    assert store.sizes("atoms").tolist() == sizes


def test_order_of_molecules_is_kept():
    store = GraphStore([2, 3], [1, 1, 6, 7, 8], cloud(5), 5.0)
    assert store.batch([1, 0]).atomic_numbers.tolist() == [6, 7, 8, 1, 1]


NEEDED = [(), ("atom_edges",), ("triplets",), ("atom_edges", "triplets")]


def absent(graph) -> set[str]:
    return {field for field, value in graph._asdict().items() if isinstance(value, tuple)}


def absent_without(needs) -> set[str]:
    fields = {"edge_image", "cell", "far_source", "far_target", "far_image", "far_table", "far_cutoff"}
    fields |= {"atom_edges"} if "atom_edges" not in needs else set()
    return fields if "triplets" in needs else fields | {"triplet_kj", "triplet_ji"}


@pytest.mark.parametrize("needs", NEEDED)
def test_arrays_that_are_not_needed_are_absent(needs):
    N, Z, R = molecules("CH3CH2OH", "H2O")
    store = GraphStore(N, Z, R, 5.0, needs)
    graph = store.batch([0, 1])
    moving = SkinList(Z[:9], 5.0, 0.5, needs, "float32").graph(R[:9])
    positions, num_atoms = tf.constant(R, tf.float32), tf.constant(N, tf.int32)
    edges = find_edges_tensorflow(positions, num_atoms, 5.0)
    made = build_graph_tensorflow(tf.constant(Z, tf.int32), positions, num_atoms, edges, 5.0, needs)
    for ours in (graph, moving, made, graph.to_tensors(), graph_signature("float32", needs)):
        assert absent(ours) == absent_without(needs)
        assert ours.needs_met == set(needs)
    for ours in (graph, moving, made):
        assert np.asarray(ours.cutoff) == 5.0 and ours.cutoff.shape == () and ours.cutoff.dtype == "float64"
    assert store.sizes("triplets").tolist() == [9 * 8 * 7, 3 * 2 * 1]
    if needs:
        assert absent(graph.only(())) == absent_without(())
        assert absent(GraphStore(N, Z, R, 5.0).batch([0])) == absent_without(())  # the default


def test_each_side_assembles_graphs_in_one_place():
    """In addition, `graph.py` makes the signature of a graph."""
    modules = {
        path.stem
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "Graph"
    }
    assert modules == {"build_numpy", "build_tensorflow", "graph"}


@pytest.mark.parametrize("needs", NEEDED)
def test_absent_arrays_survive_functions_and_saved_models(needs, tmp_path):
    N, Z, R = molecules("CH3CH2OH", "H2O")
    store, signature = GraphStore(N, Z, R, 5.0, needs), graph_signature("float32", needs)

    class Module(tf.Module):
        @tf.function(input_signature=[signature])
        def same(self, graph):
            assert absent(graph) == absent_without(needs)
            return {"graph": graph, "edges": tf.size(graph.edge_source)}

        @tf.function(input_signature=[signature])
        def count(self, graph):
            return {"edges": tf.size(graph.edge_source)}

    module = Module()
    tf.saved_model.save(module, str(tmp_path), signatures=module.count.get_concrete_function())
    loaded = tf.saved_model.load(str(tmp_path))
    for molecule in (0, 1):
        graph = store.batch([molecule])
        for same in (module.same, module.same.get_concrete_function(), loaded.same):
            answer = same(graph.to_tensors())
            assert answer["edges"] == len(graph.edge_source)
            for ours, theirs in zip(answer["graph"], graph):
                np.testing.assert_array_equal(ours, theirs)
    arguments = loaded.signatures["serving_default"].structured_input_signature[1]
    assert len(arguments) == len(graph) - len(absent_without(needs))


def test_unknown_needs_are_an_error():
    N, Z, R = molecules("H2O")
    positions, num_atoms = tf.constant(R), tf.constant(N, tf.int32)
    edges = find_edges_tensorflow(positions, num_atoms, 5.0)
    for make in (
        lambda needs: GraphStore(N, Z, R, 5.0, needs),
        lambda needs: SkinList(Z, 5.0, 0.5, needs, "float32"),
        lambda needs: build_graph_tensorflow(tf.constant(Z, tf.int32), positions, num_atoms, edges, 5.0, needs),
        lambda needs: graph_signature("float32", needs),
        check_needs,
    ):
        for needs in ("triplet", ["atom_edges", "triplet"]):
            with pytest.raises(UserError, match="^unknown name in needs 'triplet'; did you mean 'triplets'[?]$"):
                make(needs)
        make("triplets")  # one name
    assert check_needs("atom_edges") == check_needs(["atom_edges"]) == {"atom_edges"}
