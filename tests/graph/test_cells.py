"""Neighbors in periodic cells, and cells that are refused."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111, molecule

from dimenet_tf.errors import UserError
from dimenet_tf.graph import GraphStore, SkinList, find_edges
from dimenet_tf.structures.cells import images, make_cells, why_refused
from dimenet_tf.structures.limits import nearest
from helpers.periodic import SPANS_A_LATTICE, SPANS_NO_LATTICE
from helpers.periodic import images as all_images

SKEWED = [[2.1, 0, 0], [9.0, 2.3, 0.1], [-7.0, 11.0, 2.4]]
CELLS = {
    "one atom": bulk("Cu"),
    "smaller than the cutoff": bulk("NaCl", "rocksalt", 5.6),
    "skewed": Atoms("HeNe", positions=[[0, 0, 0], [1.3, 1.0, 0.9]], cell=SKEWED, pbc=True),
    "left-handed": Atoms("Ne2", positions=[[0, 0, 0], [1.5, 1, 2]], cell=np.diag([3.0, 4, -5]), pbc=True),
    "outside of the cell": Atoms("NeHe", positions=[[-30, 7, 55], [4, 100, -3]], cell=np.diag([4.0, 5, 6]), pbc=True),
    "slab": fcc111("Al", (2, 2, 3), vacuum=4.0),
    "wire": Atoms("CC", positions=[[0, 0, 0], [1.2, 0.3, 0]], cell=[2.5, 0, 0], pbc=[True, False, False]),
    "large": bulk("Cu", cubic=True) * (4, 4, 4),
}


def by_brute_force(atoms, cutoff):
    cell = np.array(atoms.cell.complete())  # other directions have no images: a box far longer than the cutoff
    cell[~atoms.pbc] *= 100
    ij, S = all_images(atoms.numbers, atoms.positions, [len(atoms)], [cell], cutoff)
    return np.column_stack([ij, S])


@pytest.mark.parametrize("name", CELLS)
def test_edges_are_all_images_within_the_cutoff(name):
    atoms, cutoff = CELLS[name], 4.2
    atoms = atoms.copy()
    atoms.rattle(0.01, seed=0)
    edges = find_edges(atoms.positions, cutoff, atoms.cell.array, atoms.pbc)
    found = np.column_stack([edges.target, edges.source, edges.image])
    expected = by_brute_force(atoms, cutoff)
    np.testing.assert_array_equal(found[np.lexsort(found.T[::-1])], expected)
    np.testing.assert_array_equal(found, expected)  # the order too
    reverse = edges.reverse()
    np.testing.assert_array_equal(edges.source[reverse], edges.target)
    np.testing.assert_array_equal(edges.image[reverse], -edges.image)


def test_the_pairs_at_the_cutoff_have_their_reverse():
    """In a crystal many pairs are exactly as far apart as the cutoff, up to rounding."""
    for dtype in ("float32", "float64"):
        atoms = bulk("Cu", cubic=True, a=3.7) * (2, 2, 2)
        atoms.positions += 0.123
        for cutoff in (3.7, 3.7 * np.sqrt(2), 7.4):
            edges = find_edges(atoms.positions.astype(dtype), cutoff, atoms.cell.array, atoms.pbc)
            reverse = edges.reverse()
            np.testing.assert_array_equal(edges.source[reverse], edges.target)
            np.testing.assert_array_equal(edges.image[reverse], -edges.image)


def test_nearest_images():
    atoms = Atoms("HeNe", positions=[[0, 0, 0], [0.4, 1.9, 0.1]], cell=np.diag([1.5, 2.2, 9.0]), pbc=True)
    near = nearest(np.zeros(2, int), atoms.positions, 10.0, make_cells(atoms.cell.array[None], atoms.pbc[None], 1))
    distances = np.sort(atoms.get_all_distances(mic=True)[0])
    np.testing.assert_allclose(near.distance, min(distances[1], 1.5), rtol=1e-12)
    assert near.neighbor.tolist() == [1, 0]
    alone = nearest(np.zeros(1, int), np.zeros((1, 3)), 10.0, make_cells(np.diag([1.5, 3, 3])[None], None, 1))
    assert alone.distance == pytest.approx(1.5) and alone.neighbor.tolist() == [0]
    owner, points = images(np.full((1, 3), 0.5), np.eye(3), np.array([True] * 3), 1.0)
    assert len(points) == 27 and set(owner) == {0}


def test_batches_mix_molecules_and_crystals():
    frames = [CELLS["slab"], molecule("H2O"), CELLS["one atom"]]
    N, Z, R = [len(a) for a in frames], np.concatenate([a.numbers for a in frames]), None
    R = np.concatenate([a.positions for a in frames])
    cell = np.stack([frames[0].cell.array, np.zeros((3, 3)), frames[2].cell.array])
    pbc = np.stack([a.pbc for a in frames])
    store = GraphStore(N, Z, R, 4.0, ["triplets"], "float64", cell, pbc)
    both = store.batch([2, 1, 0])
    assert both.is_periodic and (both.cell[1] == 0).all()
    alone = GraphStore([1], [29], np.zeros((1, 3)), 4.0, ["triplets"], "float64", cell[2:]).batch([0])
    count = len(alone.edge_source)
    np.testing.assert_array_equal(both.edge_image[:count], alone.edge_image)
    np.testing.assert_array_equal(both.triplet_kj[: len(alone.triplet_kj)], alone.triplet_kj)
    water = both.edge_target == 1
    assert water.sum() == 2 and (both.edge_image[water] == 0).all()


@pytest.mark.parametrize("name", ["one atom", "skewed", "slab", "wire"])
def test_skin_lists_hold_the_graphs_of_stores(name):
    """While atoms diffuse through several cells and the cell changes, as in dynamics at constant pressure."""
    atoms, rng = CELLS[name].copy(), np.random.default_rng(0)
    needs = ["atom_edges", "triplets", "far_edges"]
    moving = SkinList(atoms.numbers, 3.5, 0.8, needs, "float64", atoms.pbc, far_cutoff=4.5)
    for step in range(30):
        atoms.positions += 0.05 * rng.normal(size=atoms.positions.shape) + [0.4, 0.0, -0.3]
        atoms.set_cell(atoms.cell.array @ (np.eye(3) + 0.004 * rng.normal(size=(3, 3))), scale_atoms=True)
        graph = moving.graph(atoms.positions, atoms.cell.array)
        arrays = [atoms.cell.array[None], atoms.pbc[None]]
        N = [len(atoms)]
        expected = GraphStore(N, atoms.numbers, atoms.positions, 3.5, needs, "float64", *arrays, 4.5).batch([0])
        for field in ("edge_source", "far_source", "triplet_kj"):
            assert len(getattr(graph, field)) == len(getattr(expected, field)), (step, field)
        assert distances(graph) == pytest.approx(distances(expected), abs=1e-9)
        np.testing.assert_array_equal(graph.edge_source[graph.edge_reverse], graph.edge_target)
    assert moving.searches < 30
    with pytest.raises(UserError, match="needs a cell"):
        moving.graph(atoms.positions)


def distances(graph) -> np.ndarray:
    shifts = graph.edge_image @ graph.cell[0]
    vectors = graph.positions[graph.edge_source] + shifts - graph.positions[graph.edge_target]
    return np.sort(np.linalg.norm(vectors, axis=1))


def test_cells_that_span_no_lattice_are_refused():
    for cell, reason, _ in SPANS_NO_LATTICE:
        assert reason in str(why_refused(np.array(cell, float), np.array([True] * 3), 1, 10.0, 0.3)), cell
    for cell in SPANS_A_LATTICE:
        assert why_refused(np.array(cell, float), np.array([True] * 3), 1, 10.0, 0.3) is None, cell


def test_cells_of_other_shapes_are_refused():
    for cell, pbc, message in (
        (np.eye(2), None, "cell must hold numbers of shape"),
        (np.eye(3), "yes", "pbc must be true or false"),
        (np.eye(3), [0.5, 1, 1], "pbc must be true or false"),
        (None, True, "there is no cell"),
    ):
        with pytest.raises(UserError, match=message):
            make_cells(cell, pbc, 2)
    assert make_cells(np.eye(3), False, 2) is None
