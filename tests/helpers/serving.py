"""Requests to exported models, in the forms of their signatures."""

import numpy as np
import tensorflow as tf
from ase.build import molecule

from dimenet_tf.graph import GraphStore

NAMES = ["CH3CH2OH", "H2O", "H", "CO2"]


def padded(names=NAMES, extra=2, dtype=np.float32) -> dict[str, np.ndarray]:
    """Molecules as zero-padded arrays, with more columns than the largest one needs."""
    atoms = [molecule(name) for name in names]
    size = max(map(len, atoms)) + extra
    Z, R = np.zeros((len(names), size), np.int32), np.zeros((len(names), size, 3), dtype)
    for i, a in enumerate(atoms):
        Z[i, : len(a)], R[i, : len(a)] = a.numbers, a.positions
    return {"Z": Z, "R": R}


def flat(inputs) -> dict[str, np.ndarray]:
    """The molecules of padded arrays as flat arrays."""
    real = inputs["Z"] != 0
    return {"Z": inputs["Z"][real], "R": inputs["R"][real], "molecule_of_atom": np.nonzero(real)[0].astype(np.int32)}


def with_edges(arrays, cutoff=6.0) -> dict[str, np.ndarray]:
    """Flat arrays with the edges that a client found, in random order."""
    N = np.bincount(arrays["molecule_of_atom"])
    graph = GraphStore(N, arrays["Z"], arrays["R"], cutoff, ()).batch(range(len(N)))
    order = np.random.default_rng(0).permutation(len(graph.edge_source))
    return {**arrays, "edge_source": graph.edge_source[order], "edge_target": graph.edge_target[order]}


def call(loaded, signature, arrays) -> dict[str, np.ndarray]:
    """Outputs of a signature of a loaded SavedModel."""
    outputs = loaded.signatures[signature](**{name: tf.constant(array) for name, array in arrays.items()})
    return {name: value.numpy() for name, value in outputs.items()}
