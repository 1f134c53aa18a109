"""Periodic structures in exported models and in the graph's own search."""

import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from ase import Atoms
from ase.build import bulk, molecule
from ase.neighborlist import neighbor_list
from vesin import NeighborList

from dimenet_tf.data import from_atoms
from dimenet_tf.graph import GraphStore, build_graph_tensorflow, find_edges, find_edges_tensorflow, ingraph
from dimenet_tf.predictor.domain import Domain
from dimenet_tf.structures.molecules import join_atoms
from helpers.models import force_field
from helpers.periodic import SPANS_A_LATTICE, SPANS_NO_LATTICE

NEEDS = ("atom_edges", "triplets", "far_edges", "far_table")


def slab() -> Atoms:
    atoms = bulk("C", "diamond", cubic=True)
    atoms.set_cell([*atoms.cell.array[:2], [0, 0, 20]])
    atoms.pbc = [True, True, False]
    return atoms


FRAMES = [bulk("C", "fcc", 2.6), molecule("CH4"), slab(), bulk("C", "diamond")]


def random_frames(seed: int) -> list[Atoms]:
    """Crystals with skewed cells of any size and number of periodic directions, and a molecule."""
    rng, frames = np.random.default_rng(seed), [molecule("H2O")]
    for n in (1, 2, 9, 30):
        cell = rng.normal(scale=2.0, size=(3, 3)) + np.diag([3.0, -3.5, 4.0]) * n ** (1 / 3)
        positions = rng.uniform(-2, 3, (n, 3)) @ cell
        frames.append(Atoms(f"C{n}", positions=positions, cell=cell, pbc=rng.random(3) < 0.7))
    return frames


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("seed", range(4))
def test_graphs_are_those_of_the_host(seed, dtype):
    some = join_atoms(random_frames(seed))
    cell, pbc = some.cell_arrays()
    host = GraphStore(*some[:3], 3.0, NEEDS, dtype, cell, pbc, far_cutoff=4.5).batch(range(len(some.N)))
    numbers, num_atoms = (tf.constant(array, tf.int32) for array in (some.Z, some.N))
    cells = ingraph.check_cells(tf.constant(cell), tf.constant(pbc), num_atoms)
    R = tf.cast(ingraph.center(tf.constant(some.R), num_atoms, cells)[0], dtype)
    near, far = (find_edges_tensorflow(R, num_atoms, cutoff, cells) for cutoff in (3.0, 4.5))
    graph = build_graph_tensorflow(numbers, R, num_atoms, near, 3.0, NEEDS, cells.cell, far, 4.5)
    for name, ours, theirs in zip(graph._fields, graph, host):
        if name in ("positions", "cell"):
            np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5, err_msg=name)
        else:
            np.testing.assert_array_equal(ours, theirs, err_msg=name)


@pytest.fixture(scope="module")
def predictor():
    predictor = force_field("painn", "float64")
    frames = [atoms.copy() for atoms in FRAMES]
    for atoms in frames:
        atoms.info["energy"] = 0.0
    predictor.domain = Domain.of(from_atoms(frames, checks=None), predictor.model.cutoff)
    return predictor


@pytest.fixture(scope="module")
def exported(predictor, tmp_path_factory):
    folder = tmp_path_factory.mktemp("served") / "1"
    predictor.export(folder)
    return folder


def requests(frames, predictor) -> dict[str, dict[str, np.ndarray]]:
    """The same structures for each signature, in atoms outside of their cells."""
    some = join_atoms(frames)
    cell, pbc = some.cell_arrays()
    moved = some.R + np.repeat(np.einsum("mk,mkx->mx", 2.0 * pbc, cell), some.N, axis=0) * (some.Z[:, None] == 6)
    width, real = some.N.max(), np.arange(some.N.max()) < some.N[:, None]
    Z, R = np.zeros((len(some.N), width), np.int32), np.zeros((len(some.N), width, 3))
    Z[real], R[real] = some.Z, moved
    lattice = {"cell": cell, "pbc": pbc}
    owner = np.repeat(np.arange(len(some.N)), some.N).astype(np.int32)
    flat = {"Z": some.Z.astype(np.int32), "R": moved, "molecule_of_atom": owner, **lattice}
    graph = predictor.graph_store(some.N, some.Z, some.R, cell, pbc).batch(range(len(some.N)))
    inverse = np.linalg.pinv(np.where(pbc[:, :, None], cell, 0.0))
    inside = np.rint(np.einsum("ax,axk->ak", moved - graph.positions, inverse[owner]) - _origin(moved, graph, inverse))
    image = graph.edge_image - inside[graph.edge_source] + inside[graph.edge_target]
    order = np.random.default_rng(0).permutation(len(image))
    edges = {
        "edge_source": graph.edge_source[order],
        "edge_target": graph.edge_target[order],
        "edge_image": image[order].astype(np.int32),
    }
    return {"serving_default": {"Z": Z, "R": R, **lattice}, "flat": flat, "edges": {**flat, **edges}}


def _origin(moved, graph, inverse) -> np.ndarray:
    """Lattice coordinates of what centering subtracted: the same for all atoms of a structure, up to whole numbers."""
    coordinates = np.einsum("ax,axk->ak", moved - graph.positions, inverse[graph.molecule_of_atom])
    first = np.cumsum(graph.num_atoms) - graph.num_atoms
    return coordinates[first][graph.molecule_of_atom]


SCRIPT = """
import sys, numpy as np, tensorflow as tf
loaded = tf.saved_model.load(sys.argv[1])
assert "dimenet_tf" not in sys.modules
for name, signature in loaded.signatures.items():
    with np.load(f"{sys.argv[2]}/{name}.npz") as arrays:
        outputs = signature(**{key: tf.constant(array) for key, array in arrays.items()})
    np.savez(f"{sys.argv[2]}/{name}_out.npz", **outputs)
"""


def test_served_numbers_are_those_of_predict(predictor, exported, tmp_path):
    """A real SavedModel, without the package."""
    expected = predictor.predict(FRAMES)
    for name, arrays in requests(FRAMES, predictor).items():
        np.savez(tmp_path / f"{name}.npz", **arrays)
    subprocess.run([sys.executable, "-c", SCRIPT, exported, tmp_path], check=True, cwd=tmp_path)
    real = np.concatenate([[True] * len(a) + [False] * (8 - len(a)) for a in FRAMES])
    for name in ("serving_default", "flat", "edges"):
        with np.load(tmp_path / f"{name}_out.npz") as served:
            assert served["in_domain"].all()
            np.testing.assert_allclose(served["energy"], expected["energy"], rtol=1e-12)
            stress = np.nan_to_num(expected["stress"])
            np.testing.assert_allclose(served["stress"], stress, atol=1e-9 * np.abs(stress).max())
            forces = served["forces"].reshape(-1, 3)
            wanted = expected["forces"].reshape(-1, 3)[slice(None) if name == "serving_default" else real]
            np.testing.assert_allclose(forces, wanted, atol=1e-9 * np.abs(wanted).max())


@pytest.mark.parametrize("signature", ["serving_default", "flat", "edges"])
def test_cells_are_refused_in_the_graph(exported, signature):
    """The cells that the host refuses; chains and tiny cells are fine."""
    serve = tf.saved_model.load(str(exported)).signatures[signature]

    def ask(cell, pbc, edges):
        arguments = {"Z": [6], "R": [[4.0, 0.2, 0.3]], "molecule_of_atom": [0], "cell": [cell], "pbc": [pbc]}
        if signature == "serving_default":
            arguments |= {"Z": [[6]], "R": [[[4.0, 0.2, 0.3]]]}
            del arguments["molecule_of_atom"]
        if signature == "edges":
            arguments |= dict(zip(("edge_source", "edge_target", "edge_image"), edges))
        real = ("R", "cell")
        types = {"pbc": tf.bool, **dict.fromkeys(real, tf.float64)}
        return serve(**{name: tf.constant(value, types.get(name, tf.int32)) for name, value in arguments.items()})

    no_edges = [], [], np.zeros((0, 3), np.int32)
    for cell, _, reason in SPANS_NO_LATTICE:
        with pytest.raises(tf.errors.InvalidArgumentError, match=reason):
            ask(cell, [True] * 3, no_edges)
    for cell, pbc in (*((cell, [True] * 3) for cell in SPANS_A_LATTICE), (np.diag([1.6, 0, 0]), [True, False, False])):
        edges = find_edges(np.zeros((1, 3)), 3.0, np.array(cell), np.array(pbc))
        assert np.isfinite(ask(cell, pbc, edges)["energy"]).all(), cell


def test_requests_of_too_many_images_are_refused(exported):
    """1000 cells of half an Angstrom: refused before the search takes the memory of the server."""
    serve = tf.saved_model.load(str(exported)).signatures["flat"]
    count = 1000
    with pytest.raises(tf.errors.InvalidArgumentError, match="more than 5000000 images"):
        serve(
            Z=tf.fill([count], 6),
            R=tf.zeros([count, 3], tf.float64),
            molecule_of_atom=tf.range(count),
            cell=0.34 * tf.eye(3, batch_shape=[count], dtype=tf.float64),
            pbc=tf.fill([count, 3], True),
        )


@pytest.mark.parametrize("search", ["ase", "vesin"])
def test_edges_of_other_programs(predictor, exported, search):
    """Lists of neighbors that ASE and vesin make of positions outside of the cell."""
    serve = tf.saved_model.load(str(exported)).signatures["edges"]
    atoms = slab() if search == "ase" else bulk("C", "diamond", cubic=True)
    atoms.rattle(0.05, seed=1)
    atoms.positions[2] += 3 * atoms.cell.array[0] - atoms.cell.array[1]
    cutoff = predictor.model.cutoff
    if search == "ase":
        target, source, image = neighbor_list("ijS", atoms, cutoff)
    else:
        neighbors = NeighborList(cutoff=cutoff, full_list=True)
        target, source, image = neighbors.compute(atoms.positions, atoms.cell.array, True, "ijS")
    served = serve(
        Z=tf.constant(atoms.numbers, tf.int32),
        R=tf.constant(atoms.positions),
        molecule_of_atom=tf.zeros(len(atoms), tf.int32),
        cell=tf.constant(atoms.cell.array[None]),
        pbc=tf.constant(atoms.pbc[None]),
        edge_source=tf.constant(source.astype(np.int32)),
        edge_target=tf.constant(target.astype(np.int32)),
        edge_image=tf.constant(image.astype(np.int32)),
    )
    expected = predictor.predict(atoms)
    np.testing.assert_allclose(served["energy"][0], expected["energy"], rtol=1e-12)
    np.testing.assert_allclose(served["forces"], expected["forces"], atol=1e-9 * np.abs(expected["forces"]).max())


def test_warm_up_of_periodic_models(predictor, exported):
    """Each signature has a request with a cell, and answers it."""
    prediction_log_pb2 = pytest.importorskip("tensorflow_serving.apis.prediction_log_pb2")
    signatures, asked = tf.saved_model.load(str(exported)).signatures, set()
    for record in tf.data.TFRecordDataset(str(exported / "assets.extra" / "tf_serving_warmup_requests")):
        request = prediction_log_pb2.PredictionLog.FromString(record.numpy()).predict_log.request
        arrays = {name: tf.make_ndarray(proto) for name, proto in request.inputs.items()}
        answer = signatures[request.model_spec.signature_name](**{k: tf.constant(v) for k, v in arrays.items()})
        assert np.isfinite(answer["energy"]).all() and {"cell", "pbc"} <= set(arrays)
        asked.add(request.model_spec.signature_name)
    assert asked == {"serving_default", "flat", "edges"}
