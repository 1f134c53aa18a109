"""The one data structure that travels through the library."""

from __future__ import annotations

from typing import NamedTuple, Union

import numpy as np
import tensorflow as tf

Array = Union[np.ndarray, tf.Tensor]


class Graph(NamedTuple):
    """A batch of molecules and who is whose neighbor: everything a model needs, in NumPy or in TensorFlow.

    Atoms of all molecules stand behind each other, molecule by molecule; all indices count over the whole batch.
    An edge runs from its source atom j to its target atom i. Edges are sorted by (target, source), and the graph holds
    both directions of every edge. Distances and angles are not stored: models compute them from the positions, so that
    forces are a gradient and need nothing more. Arrays that a model does not need have no rows.
    """

    positions: Array
    """(atoms, 3) float, Angstrom."""
    atomic_numbers: Array
    """(atoms,) int32; 0 is a padding atom."""
    molecule_of_atom: Array
    """(atoms,) int32, ascending: the molecule that atom i belongs to."""
    num_atoms: Array
    """(molecules,) int32: atoms of each molecule."""
    edge_source: Array
    """(edges,) int32: the atom j that edge e comes from."""
    edge_target: Array
    """(edges,) int32, ascending: the atom i that edge e goes to."""
    edge_reverse: Array
    """(edges,) int32: the edge i -> j that belongs to edge e = j -> i."""
    edge_shift: Array
    """(edges, 3) float, Angstrom: what is added to the source's position because it is a periodic image; 0 here."""
    atom_edges: Array
    """(atoms, max_neighbors) int32: the edges that go to atom i, filled up with -1. For PaiNN,
    SphereNet and DPGN, and for `aggregation: sum_first` and `harmonics`."""
    triplet_kj: Array
    """(triplets,) int32: edge k -> j of triplet t, k -> j -> i with k != i. For `aggregation: triplets`."""
    triplet_ji: Array
    """(triplets,) int32, ascending: edge j -> i of triplet t."""


def graph_signature(dtype: str = "float32") -> Graph:
    """Return the `tf.TensorSpec` of every field, all sizes open: one trace serves every batch."""
    number = tf.TensorSpec([None], tf.int32)
    vector = tf.TensorSpec([None, 3], dtype)
    return Graph(
        positions=vector,
        atomic_numbers=number,
        molecule_of_atom=number,
        num_atoms=number,
        edge_source=number,
        edge_target=number,
        edge_reverse=number,
        edge_shift=vector,
        atom_edges=tf.TensorSpec([None, None], tf.int32),
        triplet_kj=number,
        triplet_ji=number,
    )
