"""Numbers of published implementations for periodic systems (tests/files/README.md)."""

import itertools

import numpy as np
import tensorflow as tf

from dimenet_tf.graph import Graph
from helpers.paths import FILES


def periodic_reference(name: str) -> dict[str, np.ndarray]:
    """Arrays of a reference file: inputs `in/`, weights `w/`, outputs `out32/` and `out64/`."""
    with np.load(FILES / f"periodic_{name}.npz") as file:
        return dict(file)


def images(Z, R, N, cells, cutoff) -> tuple[np.ndarray, np.ndarray]:
    """Edges (target, source) and images of crystals, found by brute force: (edges, 2), (edges, 3) int."""
    ends = np.cumsum(N)
    edges = []
    for end, n, cell in zip(ends, N, np.asarray(cells, float)):
        heights = np.abs(np.linalg.det(cell)) / np.linalg.norm(
            np.cross(np.roll(cell, 2, axis=0), np.roll(cell, 1, axis=0)), axis=1
        )
        atoms = np.asarray(R[end - n : end], float)
        spread = np.ceil(np.ptp(atoms @ np.linalg.inv(cell), axis=0))
        reach = (np.ceil(cutoff / heights) + spread + 1).astype(int)
        for S in itertools.product(*(range(-r, r + 1) for r in reach)):
            d = np.linalg.norm(atoms[None] + S @ cell - atoms[:, None], axis=-1)  # (target, source)
            near = (d <= cutoff) & ~(np.eye(n, dtype=bool) & (not any(S)))
            edges += [(i + end - n, j + end - n, *S) for i, j in np.argwhere(near)]
    edges = np.array(sorted(edges))
    return edges[:, :2], edges[:, 2:]


def periodic_graph(Z, R, N, cells, model) -> tuple[Graph, np.ndarray, np.ndarray]:
    """Graph of crystals as the model needs it, with the images (edges, 3) and the molecule of each edge."""
    ij, S = images(Z, R, N, cells, model.cutoff)
    molecule = np.repeat(np.arange(len(N)), N)
    place = {(i, j, *s): e for e, ((i, j), s) in enumerate(zip(ij.tolist(), S.tolist()))}
    reverse = np.array([place[(j, i, *(-x for x in s))] for (i, j), s in zip(ij.tolist(), S.tolist())])
    target, source = ij.T
    counts = np.bincount(target, minlength=len(Z))
    first = np.cumsum(counts) - counts
    atom_edges = np.full((len(Z), counts.max()), -1)
    atom_edges[target, np.arange(len(target)) - first[target]] = np.arange(len(target))
    pairs = [(kj, e) for e in range(len(target)) for kj in atom_edges[source[e]] if kj >= 0 and kj != reverse[e]]
    triplet_kj, triplet_ji = np.array(pairs).T
    of_edge = molecule[target]
    shift = np.einsum("ei,eij->ej", S, np.asarray(cells, np.float64)[of_edge])

    def integers(x):
        return np.asarray(x, np.int32)

    graph = Graph(
        positions=np.asarray(R, model.dtype),
        atomic_numbers=integers(Z),
        molecule_of_atom=integers(molecule),
        num_atoms=integers(N),
        edge_source=integers(source),
        edge_target=integers(target),
        edge_reverse=integers(reverse),
        edge_shift=shift.astype(model.dtype),
        cutoff=np.float64(model.cutoff),
        atom_edges=integers(atom_edges),
        triplet_kj=integers(triplet_kj),
        triplet_ji=integers(triplet_ji),
    )
    return graph.only(model.needs).to_tensors(), S, of_edge


def energy_forces_stress(Z, R, N, cells, model, head, target="energy"):
    """Energies (molecules,), forces (atoms, 3) and stress (molecules, 3, 3): derivatives by one backward pass.

    Direct forces take the place of the gradient.
    """
    graph, _, of_edge = periodic_graph(Z, R, N, cells, model)
    strain = tf.zeros([len(N), 3, 3], model.dtype)
    with tf.GradientTape() as tape:
        tape.watch([graph.positions, strain])
        symmetric = (strain + tf.transpose(strain, [0, 2, 1])) / 2
        R_strained = graph.positions + tf.einsum(
            "ni,nij->nj", graph.positions, tf.gather(symmetric, graph.molecule_of_atom)
        )
        shift = graph.edge_shift + tf.einsum("ei,eij->ej", graph.edge_shift, tf.gather(symmetric, of_edge))
        strained = graph._replace(positions=R_strained, edge_shift=shift)
        outputs = model(strained)
        energy = head.values(head.shares(outputs, strained), strained)[0][:, 0]
        total = tf.reduce_sum(energy)
    gradient, virial = tape.gradient(total, [graph.positions, strain])
    forces = head.direct_forces(outputs, target) if model.direct_forces else -tf.convert_to_tensor(gradient)
    volume = np.abs(np.linalg.det(np.asarray(cells, float)))
    return energy.numpy(), forces.numpy(), virial.numpy() / volume[:, None, None]
