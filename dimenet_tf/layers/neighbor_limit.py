"""Limit of the number of neighbors, for models that were trained with one (OC20).

A graph has all edges within the cutoff. Multiplying the basis of an edge by zero takes it out of these models, as it
happens to every edge at the cutoff.
"""

from __future__ import annotations

import tensorflow as tf

from dimenet_tf.errors import UserError
from dimenet_tf.graph import Graph

TIE = 1e-4  # Angstrom
LIMIT_JUMPS = (
    "max_neighbors leaves out all but the nearest neighbors of an atom: the energy jumps where two atoms change places "
    "in their order of distances. max_neighbors = 0 keeps all neighbors within the cutoff"
)


class NeighborLimit:
    """The edges that come from the nearest neighbors of each atom.

    Edges that are longer than the last of them by at most 0.0001 Angstrom are kept too, so that the result does not
    depend on the order of equal distances.

    Parameters
    ----------
    graph : Graph
    distance : (edges,), Angstrom
    max_neighbors : int
        Edges kept of those that go to an atom; 0 keeps all.
    symmetric : bool
        Keep both edges of a pair of atoms or none. As published, the atom with the higher number decides, so the
        result depends on the order of the atoms.

    Attributes
    ----------
    dropped : (atoms,), number of edges left out of those that go to each atom; None without a limit
    """

    def __init__(self, graph: Graph, distance: tf.Tensor, max_neighbors: int, symmetric: bool) -> None:
        self._kept: tf.Tensor | None = None
        self.dropped: tf.Tensor | None = None
        if not max_neighbors:
            return
        distance, target = tf.stop_gradient(distance), graph.edge_target
        atoms = tf.shape(graph.atomic_numbers)[0]
        degree = tf.math.unsorted_segment_sum(tf.ones_like(target), target, atoms)
        by_distance = tf.argsort(distance, stable=True)
        order = tf.gather(by_distance, tf.argsort(tf.gather(target, by_distance), stable=True))  # by target, distance
        infinity = tf.constant([float("inf")], distance.dtype)
        ordered = tf.concat([tf.gather(distance, order), infinity], axis=0)
        last = tf.cumsum(degree, exclusive=True) + max_neighbors - 1  # place of the last neighbor of each atom
        farthest = tf.gather(ordered, tf.where(degree > max_neighbors, last, tf.shape(target)[0])) + TIE
        kept = distance <= tf.gather(farthest, target)
        if symmetric:
            kept = tf.where(graph.edge_source <= target, kept, tf.gather(kept, graph.edge_reverse))
        self._kept = tf.cast(kept, distance.dtype)[:, None]  # (edges, 1)
        self.dropped = tf.math.unsorted_segment_sum(1 - self._kept[:, 0], target, atoms)

    def mask(self, basis: tf.Tensor) -> tf.Tensor:
        """Return functions of edges with zeros where an edge is left out, (edges, ...)."""
        if self._kept is None:
            return basis
        kept = tf.cast(self._kept, basis.dtype)
        return basis * (kept if basis.shape.rank == 2 else kept[:, None])


def check_limit(max_neighbors: int, conventions: str) -> None:
    """Raise a UserError for a limit of a model that is not of OC20's kind."""
    if max_neighbors and conventions != "oc20":
        raise UserError(
            f"max_neighbors = {max_neighbors} needs conventions = 'oc20', as only OC20's models were trained with it; "
            "0 keeps all neighbors within the cutoff",
            "max_neighbors",
        )
