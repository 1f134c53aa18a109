"""`Graph`: a batch of molecules with their neighbor lists."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple, Union

import numpy as np
import tensorflow as tf

from dimenet_tf.errors import unknown_name

Array = Union[np.ndarray, tf.Tensor]
OptionalArray = Union[np.ndarray, tf.Tensor, tuple[()]]
NEEDS = {
    "atom_edges": ("atom_edges",),
    "triplets": ("triplet_kj", "triplet_ji"),
    "far_edges": ("far_source", "far_target", "far_image", "far_cutoff"),
    "far_table": ("far_table",),
}
"""Names of the optional arrays that a model may need, with their fields of `Graph`."""
FAR = frozenset({"far_edges", "far_table"})
"""Those of the pairs up to a second cutoff."""


class Graph(NamedTuple):
    """Batch of molecules with neighbor lists, as NumPy arrays or TensorFlow tensors.

    Atoms of all molecules are concatenated along the first axis. All indices refer to the whole batch.
    An edge runs from its source atom j to its target atom i. Edges are sorted by (target, source), and the graph holds
    both directions of every edge. Distances and angles are not stored: models compute them from the positions, so that
    forces are a gradient and need nothing more. Optional fields that were not made are the empty tuple `()`, which is
    a structure without tensors to TensorFlow.

    A periodic structure has edges from images of its atoms. Where the cell is smaller than the cutoff, there are
    several between the same two atoms, and from an atom to itself. They differ in `edge_image`.

    A graph fits the model that made it (`model.graph_store`, `predictor.graph_store`): models refuse graphs of another
    cutoff or dtype, and graphs without an optional field that they need.

    Examples
    --------
    Edges of a water molecule:

    >>> from dimenet_tf.graph import GraphStore
    >>> R = [[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]]
    >>> graph = GraphStore([3], [8, 1, 1], R, cutoff=1.2).batch([0])
    >>> list(zip(graph.edge_source.tolist(), graph.edge_target.tolist()))
    [(1, 0), (2, 0), (0, 1), (0, 2)]
    >>> graph.triplet_kj
    ()
    """

    positions: Array
    """(atoms, 3) float, Angstrom, relative to the centroid of each molecule where the library makes the graph."""
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
    cutoff: Array
    """() float64, Angstrom: the distance up to which pairs of atoms are edges."""
    atom_edges: OptionalArray = ()
    """(atoms, max_neighbors) int32: the edges that go to atom i, filled up with -1; `()` if not made."""
    triplet_kj: OptionalArray = ()
    """(triplets,) int32: edge k -> j of triplet t, k -> j -> i with k != i; `()` if not made."""
    triplet_ji: OptionalArray = ()
    """(triplets,) int32, ascending: edge j -> i of triplet t. `()` if not made."""
    edge_image: OptionalArray = ()
    """(edges, 3) int32: the image of the source j that edge e comes from, at R_j + edge_image @ cell; `()` if no
    structure of the batch is periodic. The reverse of an edge has the opposite image."""
    cell: OptionalArray = ()
    """(molecules, 3, 3) float, Angstrom: rows are lattice vectors, zero for molecules; `()` if no structure is
    periodic. A strain of the structure acts on the positions and the cell."""
    far_source: OptionalArray = ()
    """(far edges,) int32: the first atom of each ordered pair up to a second cutoff; `()` if not made."""
    far_target: OptionalArray = ()
    """(far edges,) int32, ascending: the second atom of each such pair. `()` if not made."""
    far_image: OptionalArray = ()
    """(far edges, 3) int32: as `edge_image`, of these pairs."""
    far_table: OptionalArray = ()
    """(atoms, max_far) int32: as `atom_edges`, of the far edges; `()` if not made."""
    far_cutoff: OptionalArray = ()
    """() float64, Angstrom: the second cutoff; `()` if there is none."""

    def __repr__(self) -> str:
        parts = {
            name: array for name, array in self._asdict().items() if hasattr(array, "shape") and "cutoff" not in name
        }
        shapes = [f"{name} {tuple(array.shape)}" for name, array in parts.items()]
        known = hasattr(self.cutoff, "numpy") or isinstance(self.cutoff, (float, np.ndarray, np.generic))
        if known and not tf.is_symbolic_tensor(self.cutoff):  # Keras' errors show graphs with words in place of tensors
            shapes.append(f"cutoff {float(self.cutoff):g} Ang")
        return f"Graph({', '.join(shapes)})"

    @property
    def needs_met(self) -> frozenset[str]:
        """Names in `NEEDS` whose arrays the graph has."""
        return frozenset(name for name, fields in NEEDS.items() if not isinstance(getattr(self, fields[0]), tuple))

    @property
    def is_periodic(self) -> bool:
        """Whether the graph has cells; in a batch with crystals molecules have a cell of zeros."""
        return not isinstance(self.cell, tuple)

    def to_tensors(self) -> Graph:
        """Return the graph with tensors instead of NumPy arrays; fields that were not made stay `()`.

        Examples
        --------
        >>> from dimenet_tf.graph import GraphStore
        >>> graph = GraphStore([2], [1, 1], [[0, 0, 0], [0.74, 0, 0]], cutoff=5.0).batch([0]).to_tensors()
        >>> graph.edge_source.dtype, graph.triplet_kj
        (tf.int32, ())
        """
        return tf.nest.map_structure(tf.convert_to_tensor, self)

    def only(self, needs: Iterable[str]) -> Graph:
        """Return the graph without the optional arrays that are not in `needs`.

        Examples
        --------
        >>> from dimenet_tf.graph import GraphStore
        >>> R = [[0, 0, 0], [0.74, 0, 0]]
        >>> graph = GraphStore([2], [1, 1], R, cutoff=5.0, needs=["atom_edges", "triplets"]).batch([0])
        >>> sorted(graph.needs_met), sorted(graph.only(["atom_edges"]).needs_met)
        (['atom_edges', 'triplets'], ['atom_edges'])
        """
        needs = check_needs(needs)
        unused = [field for name, fields in NEEDS.items() if name not in needs for field in fields]
        return self._replace(**dict.fromkeys(unused, ()))


def check_needs(needs: Iterable[str]) -> frozenset[str]:
    """Return a set of names in `NEEDS`. A single name may be given as a string.

    Raises
    ------
    UserError
        For an unknown name.

    Examples
    --------
    >>> from dimenet_tf.graph import NEEDS, check_needs
    >>> check_needs("triplets")
    frozenset({'triplets'})
    >>> NEEDS["triplets"]
    ('triplet_kj', 'triplet_ji')
    """
    needs = frozenset([needs] if isinstance(needs, str) else needs)
    for name in sorted(needs.difference(NEEDS), key=str):
        raise unknown_name("name in needs", str(name), NEEDS)
    return needs


def graph_signature(dtype: str, needs: Iterable[str], periodic: bool = False) -> Graph:
    """Return a `Graph` of `tf.TensorSpec` with open sizes: with this signature, one trace serves every batch.

    Parameters
    ----------
    dtype : of the positions; a model's `dtype`
    needs : the optional arrays; a model's `needs`. Fields that are not in it are `()`
    periodic : whether graphs have cells and images

    Raises
    ------
    UserError
        For an unknown name in `needs`.

    Examples
    --------
    >>> import tensorflow as tf
    >>> from dimenet_tf.graph import GraphStore, graph_signature
    >>> @tf.function(input_signature=[graph_signature("float32", needs=())])
    ... def count_edges(graph):
    ...     return tf.size(graph.edge_source)
    >>> graph = GraphStore([2], [1, 1], [[0, 0, 0], [0.74, 0, 0]], cutoff=5.0).batch([0])
    >>> count_edges(graph.to_tensors()).numpy().item()
    2
    """
    number = tf.TensorSpec([None], tf.int32)
    vector, image = tf.TensorSpec([None, 3], dtype), tf.TensorSpec([None, 3], tf.int32)
    graph = Graph(
        positions=vector,
        atomic_numbers=number,
        molecule_of_atom=number,
        num_atoms=number,
        edge_source=number,
        edge_target=number,
        edge_reverse=number,
        cutoff=tf.TensorSpec([], tf.float64),
        atom_edges=tf.TensorSpec([None, None], tf.int32),
        triplet_kj=number,
        triplet_ji=number,
        edge_image=image if periodic else (),
        cell=tf.TensorSpec([None, 3, 3], dtype) if periodic else (),
        far_source=number,
        far_target=number,
        far_image=image if periodic else (),
        far_table=tf.TensorSpec([None, None], tf.int32),
        far_cutoff=tf.TensorSpec([], tf.float64),
    )
    return graph.only(needs)
