"""Only the nearest neighbors of an atom: against graphs that never had the other edges."""

import ase.io
import numpy as np
import pytest
import tensorflow as tf
from ase import Atoms
from ase.build import bulk

import dimenet_tf
from dimenet_tf.bulk import predict_file
from dimenet_tf.errors import UserError
from dimenet_tf.graph import build_graph_numpy, find_edges, find_triplets
from dimenet_tf.graph.build_numpy import edge_vectors_numpy
from dimenet_tf.layers.geometry import edge_vectors, safe_norm
from dimenet_tf.layers.neighbor_limit import LIMIT_JUMPS, NeighborLimit
from dimenet_tf.md import Batched
from dimenet_tf.models import MODELS
from dimenet_tf.predictor import Predictor
from dimenet_tf.properties.heads import scalar_head

OC20 = {"gemnet": {"triplets_only": True, "radial_basis": "gaussian"}, "dimenet_pp": {}, "painn": {}}
OC20["painn"] = {"radial_basis": "gaussian", "envelope": "polynomial", "envelope_exponent": 4}
CUTOFF = 4.0


def predictor_of(name, max_neighbors, dtype="float64", **hyperparameters):
    head = scalar_head(["energy"], ["eV"], np.zeros((1, 95)), [0.0], [1.0])
    sizes = {**MODELS[name].small, **OC20[name], "cutoff": CUTOFF, "conventions": "oc20"}
    sizes |= {"max_neighbors": max_neighbors, **hyperparameters}
    return Predictor(name, sizes, head, [6, 29], dtype, energy="energy", periodic=True)


def crystal(seed=0, n=7):
    rng = np.random.default_rng(seed)
    cell = np.diag([4.0, 4.5, 5.0]) + rng.normal(scale=0.4, size=(3, 3))
    return Atoms(f"C{n}", positions=rng.random((n, 3)) @ cell, cell=cell, pbc=True)


def nearest_one_by_one(edges, distance, max_neighbors, symmetric):
    """The rule in plain Python, an atom at a time."""
    kept = np.zeros(len(distance), bool)
    for atom in np.unique(edges.target):
        own = np.flatnonzero(edges.target == atom)
        lengths = sorted(distance[own])
        farthest = lengths[min(max_neighbors, len(own)) - 1] + 1e-4
        kept[own] = distance[own] <= farthest
    if symmetric:
        reverse = edges.reverse()
        return np.array([kept[e] if s <= t else kept[reverse[e]] for e, (s, t) in enumerate(zip(*edges[:2]))])
    return kept


@pytest.mark.parametrize("name", OC20)
@pytest.mark.parametrize("max_neighbors", [1, 6, 20, 500])
def test_edges_left_out_count_for_nothing(name, max_neighbors):
    atoms, symmetric = crystal(), name != "dimenet_pp"
    # a graph without reverse edges is possible with triplets that are listed
    options = {} if symmetric else {"aggregation": "triplets"}
    predictor, unlimited = predictor_of(name, max_neighbors, **options), predictor_of(name, 0, **options)
    unlimited.set_weights(predictor.get_weights())
    Z, R, cell = atoms.numbers.astype(np.int32), atoms.positions, atoms.cell.array
    edges = find_edges(R, CUTOFF, cell, atoms.pbc)
    distance = np.linalg.norm(edge_vectors_numpy(R, edges, cell), axis=1)
    kept = nearest_one_by_one(edges, distance, max_neighbors, symmetric)
    few, more = edges.select(kept), {}
    if not symmetric:
        reverse = edges.reverse()
        kj, ji = find_triplets(edges.source, edges.target, reverse, len(Z))
        number = np.cumsum(kept) - 1
        both = kept[kj] & kept[ji]
        more = {"triplets": (number[kj[both]], number[ji[both]]), "reverse": np.zeros(kept.sum(), np.int32)}
    N, needs = np.array([len(Z)], np.int32), unlimited.model.needs
    expected = unlimited.compute(build_graph_numpy(Z, R, N, few, CUTOFF, needs, cell=cell[None], **more))
    found = predictor.compute(predictor.graph_store(N, Z, R, cell[None]).batch([0]))
    for quantity in ("values", "forces", "stress"):
        ours, theirs = (np.asarray(getattr(prediction, quantity)) for prediction in (found, expected))
        np.testing.assert_allclose(ours, theirs, atol=1e-11 * np.abs(theirs).max(), err_msg=quantity)
    assert found.neighbors_dropped.numpy().tolist() == [np.count_nonzero(~kept)]
    assert (max_neighbors < 500) == bool(np.count_nonzero(~kept))


@pytest.mark.parametrize("symmetric", [True, False])
def test_equal_distances_are_kept_together(symmetric):
    model = predictor_of("gemnet", 5).model
    copper = bulk("Cu", cubic=True)  # 12 nearest neighbors at one distance, 6 more at the next
    store = model.graph_store([4], copper.numbers, copper.positions, copper.cell.array[None])
    graph = store.batch([0]).to_tensors()
    distance = safe_norm(edge_vectors(graph))
    for max_neighbors, dropped in ((5, 6), (12, 6), (13, 0)):
        limit = NeighborLimit(graph, distance, max_neighbors, symmetric)
        assert limit.dropped.numpy().tolist() == [dropped] * 4
    compiled = tf.function(lambda graph: NeighborLimit(graph, distance, 5, symmetric).dropped, jit_compile=True)
    assert compiled(graph).numpy().tolist() == [6] * 4


def test_atoms_without_neighbors():
    predictor = predictor_of("painn", 1)
    far = np.array([[0.0, 0, 0], [1.5, 0, 0], [30, 0, 0]])
    found = predictor.predict({"Z": np.array([6, 6, 6]), "R": far})
    assert found["neighbors_dropped"] == 0 and np.isfinite(found["energy"])


def test_every_way_to_predict_tells(tmp_path):
    predictor = predictor_of("dimenet_pp", 6, "float32")
    frames = [crystal(1), bulk("Cu"), crystal(2)]
    expected = predictor.predict(frames)
    assert expected["neighbors_dropped"].dtype == np.int32
    assert expected["neighbors_dropped"][0] > expected["neighbors_dropped"][1] > 0
    alone = predictor.predict(frames[2])
    assert alone["neighbors_dropped"] == expected["neighbors_dropped"][2]
    predictor.to_folder(tmp_path / "model")
    ase.io.write(tmp_path / "in.extxyz", frames)
    for suffix in (".npz", ".extxyz"):
        predict_file(tmp_path / "model", tmp_path / "in.extxyz", tmp_path / f"out{suffix}")
        if suffix == ".npz":
            found = np.load(tmp_path / "out.npz")["neighbors_dropped"]
        else:
            found = [atoms.info["neighbors_dropped"] for atoms in ase.io.read(tmp_path / "out.extxyz", ":")]
        np.testing.assert_array_equal(found, expected["neighbors_dropped"])
    with pytest.warns(UserWarning, match="max_neighbors leaves out all but the nearest"):
        calculator = dimenet_tf.Calculator(predictor)
    frames[0].calc = calculator
    assert frames[0].get_potential_energy() == pytest.approx(expected["energy"][0], rel=1e-5)
    assert calculator.neighbors_dropped == expected["neighbors_dropped"][0]
    with pytest.warns(UserWarning, match="max_neighbors leaves out"):
        batch = Batched(predictor, frames)
    np.testing.assert_array_equal(batch.predicted["neighbors_dropped"], expected["neighbors_dropped"])
    predictor.export(tmp_path / "1")
    serve = tf.saved_model.load(str(tmp_path / "1")).signatures["serving_default"]
    inputs = {"Z": frames[2].numbers[None], "R": frames[2].positions[None], "cell": frames[2].cell.array[None]}
    inputs = {key: tf.constant(value, tf.int32 if key == "Z" else tf.float32) for key, value in inputs.items()}
    served = serve(pbc=tf.constant([[True] * 3]), **inputs)
    assert served["neighbors_dropped"].numpy().tolist() == [expected["neighbors_dropped"][2]]


@pytest.mark.parametrize("name", OC20)
def test_only_models_of_oc20_have_a_limit(name):
    with pytest.raises(UserError, match="max_neighbors = 50 needs conventions = 'oc20'"):
        dimenet_tf.build_model(name, max_neighbors=50)
    assert predictor_of(name, 50).model.discontinuity == LIMIT_JUMPS
    assert "neighbors_dropped" not in predictor_of(name, 0).predict(crystal())
