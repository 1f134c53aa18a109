"""The graph of one molecule in motion."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from dimenet_tf.graph.graph import Graph
from dimenet_tf.graph.neighbors import find_edges, find_reverse, find_triplets, neighbor_table


class SkinList:
    """Neighbors of a molecule whose atoms move a little from call to call.

    Pairs up to `cutoff` + `skin` apart are searched for anew only when an atom has moved by half the skin; every graph
    holds exactly the pairs within the cutoff, as `GraphStore` finds them.

    Parameters
    ----------
    Z : (atoms,) int, atomic numbers
    cutoff, skin : float, Angstrom
    needs : a model's `needs`
    dtype : of the positions, "float32" or "float64"
    """

    def __init__(self, Z: np.ndarray, cutoff: float, skin: float, needs: Iterable[str], dtype: str) -> None:
        self.Z = np.asarray(Z, np.int32)
        self.cutoff, self.skin, self.needs, self.dtype = cutoff, skin, frozenset(needs), np.dtype(dtype)
        self.searches = 0
        self._positions = None  # of the last search

    def graph(self, R: np.ndarray) -> Graph:
        """Return the graph for positions R, (atoms, 3), Angstrom."""
        R = np.ascontiguousarray(R, self.dtype)
        if self._positions is None or np.square(R - self._positions).sum(axis=1).max() > (self.skin / 2) ** 2:
            self._search(R)
        vectors = R[self._source] - R[self._target]
        near = np.sqrt((vectors * vectors).sum(axis=1)) <= self.dtype.type(self.cutoff)  # as `find_edges`
        if near.all():
            source, target, reverse = self._source, self._target, self._reverse
        else:
            source, target = self._source[near], self._target[near]
            # both directions of a pair are equally long: no edge loses its reverse
            reverse = (np.cumsum(near, dtype=np.int32) - 1)[self._reverse[near]]
        kj = ji = np.empty(0, np.int32)
        if "triplets" in self.needs:
            kj, ji = find_triplets(source, target, reverse, len(R))
        table = neighbor_table(target, len(R)) if "atom_edges" in self.needs else np.empty((0, 0), np.int32)
        return Graph(
            positions=R,
            atomic_numbers=self.Z,
            molecule_of_atom=np.zeros(len(R), np.int32),
            num_atoms=np.array([len(R)], np.int32),
            edge_source=source,
            edge_target=target,
            edge_reverse=reverse,
            edge_shift=np.zeros((len(source), 3), self.dtype),
            atom_edges=table,
            triplet_kj=kj,
            triplet_ji=ji,
        )

    def _search(self, R: np.ndarray) -> None:
        self._source, self._target = find_edges(R, self.cutoff + self.skin)
        self._reverse = find_reverse(self._source, self._target)
        self._positions = R.copy()
        self.searches += 1
