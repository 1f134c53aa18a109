"""The graph of one molecule in motion."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from dimenet_tf.graph.graph import Graph, OptionalArray, check_needs
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
        self.cutoff, self.skin, self.needs, self.dtype = cutoff, skin, check_needs(needs), np.dtype(dtype)
        self.searches = 0
        self.closest = np.inf
        """Smallest squared distance of two atoms in the last graph."""
        self._positions: np.ndarray | None = None  # of the last search
        self._near: np.ndarray | None = None  # which of the pairs found then were in the last graph

    def __repr__(self) -> str:
        return f"SkinList({len(self.Z)} atoms; cutoff {self.cutoff:g} Ang, skin {self.skin:g} Ang; {self.dtype})"

    def graph(self, R: np.ndarray) -> Graph:
        """Return the graph for positions R, (atoms, 3), Angstrom.

        As long as no pair crosses the cutoff its index arrays are the very ones of the graph before.
        """
        R = np.ascontiguousarray(R, self.dtype)
        if self._positions is None or np.square(R - self._positions).sum(axis=1).max() > (self.skin / 2) ** 2:
            self._search(R)
        vectors = R[self._source] - R[self._target]
        square = (vectors * vectors).sum(axis=1)
        near = np.sqrt(square) <= self.dtype.type(self.cutoff)  # as `find_edges`
        self.closest = square.min(initial=np.inf)
        if self._near is None or not np.array_equal(near, self._near):
            self._near, self._graph = near, self._connect(near)
        return self._graph._replace(positions=R)

    def _connect(self, near: np.ndarray) -> Graph:
        """Return the graph of the given pairs, without positions."""
        source, target = self._source[near], self._target[near]
        # both directions of a pair are equally long: no edge loses its reverse
        reverse = (np.cumsum(near, dtype=np.int32) - 1)[self._reverse[near]]
        atoms = len(self.Z)
        kj: OptionalArray = ()
        ji: OptionalArray = ()
        if "triplets" in self.needs:
            kj, ji = find_triplets(source, target, reverse, atoms)
        return Graph(
            positions=None,
            atomic_numbers=self.Z,
            molecule_of_atom=np.zeros(atoms, np.int32),
            num_atoms=np.array([atoms], np.int32),
            edge_source=source,
            edge_target=target,
            edge_reverse=reverse,
            edge_shift=np.zeros((len(source), 3), self.dtype),
            cutoff=np.array(self.cutoff, np.float64),
            atom_edges=neighbor_table(target, atoms) if "atom_edges" in self.needs else (),
            triplet_kj=kj,
            triplet_ji=ji,
        )

    def _search(self, R: np.ndarray) -> None:
        self._source, self._target = find_edges(R, self.cutoff + self.skin)
        self._reverse = find_reverse(self._source, self._target)
        self._positions, self._near = R.copy(), None
        self.searches += 1
