"""Molecules whose neighbors are searched for once, and any number of batches of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import ArrayLike

from dimenet_tf.graph.build_numpy import build_graph_numpy, find_edges, find_reverse, find_triplets
from dimenet_tf.graph.graph import Graph, check_needs
from dimenet_tf.structures.limits import centered


class GraphStore:
    """Molecules with their edges, and triplets where they are needed, in flat arrays.

    Neighbors are searched for once, when the store is made. `model.graph_store(N, Z, R)` makes one with the model's
    cutoff, needs and dtype. Models refuse graphs that were made with other ones.

    Parameters
    ----------
    N : (molecules,) int, atoms of each molecule
    Z : (sum N,) int, atomic numbers
    R : (sum N, 3) float, positions in Angstrom. Graphs have positions relative to the centroid of each molecule
    cutoff : float, Angstrom
    needs : the optional index arrays to make, of "atom_edges" and "triplets"; a model's `needs`
    dtype : of the positions, "float32" or "float64"; whether a pair is an edge is decided in it

    Raises
    ------
    UserError
        For an unknown name in `needs`.

    Examples
    --------
    Water and a hydrogen molecule:

    >>> from dimenet_tf.graph import GraphStore
    >>> R = [[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0], [0, 0, 0], [0.74, 0, 0]]
    >>> store = GraphStore([3, 2], [8, 1, 1, 1, 1], R, cutoff=5.0, needs=["triplets"])
    >>> store
    GraphStore(2 molecules, 5 atoms, 8 edges, triplets; cutoff 5 Ang; float32)
    >>> store.batch([1, 0]).num_atoms.tolist()
    [2, 3]
    """

    def __init__(
        self,
        N: ArrayLike,
        Z: ArrayLike,
        R: ArrayLike,
        cutoff: float,
        needs: Iterable[str] = (),
        dtype: str = "float32",
    ) -> None:
        self.cutoff, self.needs, self.dtype = float(cutoff), check_needs(needs), np.dtype(dtype).name
        self.num_atoms = np.asarray(N, np.int32)
        self._atom = _offsets(self.num_atoms)
        self._numbers = np.asarray(Z, np.int32)
        self._positions = centered(self.num_atoms, np.asarray(R)).astype(dtype)
        parts = [self._connect(i, cutoff) for i in range(len(self.num_atoms))]
        columns = list(zip(*parts)) or [[]] * 5
        self._edge = _offsets([len(source) for source in columns[0]])
        self._triplet = _offsets([len(kj) for kj in columns[3]])
        empty = np.empty(0, np.int32)
        self._source, self._target, self._reverse, self._kj, self._ji = (
            np.concatenate([empty, *column]) for column in columns
        )

    def _connect(self, molecule: int, cutoff: float) -> tuple[np.ndarray, ...]:
        positions = self._positions[self._atom[molecule] : self._atom[molecule + 1]]
        source, target = find_edges(positions, cutoff)
        reverse = find_reverse(source, target)
        kj = ji = np.empty(0, np.int32)
        if "triplets" in self.needs:
            kj, ji = find_triplets(source, target, reverse, len(positions))
        return source, target, reverse, kj, ji

    def __repr__(self) -> str:
        sizes = f"{len(self)} molecules, {self._atom[-1]} atoms, {self._edge[-1]} edges"
        needs = "".join(f", {name}" for name in sorted(self.needs))
        return f"GraphStore({sizes}{needs}; cutoff {self.cutoff:g} Ang; {self.dtype})"

    def __len__(self) -> int:
        return len(self.num_atoms)

    def sizes(self, of: str) -> np.ndarray:
        """Count the "atoms", "edges" or "triplets" of each molecule, (molecules,) int.

        Examples
        --------
        >>> from dimenet_tf.graph import GraphStore
        >>> R = [[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0], [0, 0, 0], [0.74, 0, 0]]
        >>> store = GraphStore([3, 2], [8, 1, 1, 1, 1], R, cutoff=5.0)
        >>> {of: store.sizes(of).tolist() for of in ("atoms", "edges", "triplets")}
        {'atoms': [3, 2], 'edges': [6, 2], 'triplets': [6, 0]}
        """
        if of == "atoms":
            return np.diff(self._atom)
        if of == "edges":
            return np.diff(self._edge)
        # edges k -> j -> i with k != i: each atom j pairs its d edges in with its d edges out, except d returns
        degree = np.bincount(self._target + np.repeat(self._atom[:-1], np.diff(self._edge)), minlength=self._atom[-1])
        return np.add.reduceat(np.append(degree * (degree - 1), 0), self._atom[:-1])

    def atoms(self, molecules: Iterable[int]) -> np.ndarray:
        """Return the indices of the given molecules' atoms in the store's flat arrays.

        They select rows of labels of atoms, such as forces, in the order of a batch.

        Examples
        --------
        >>> from dimenet_tf.graph import GraphStore
        >>> R = [[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0], [0, 0, 0], [0.74, 0, 0]]
        >>> store = GraphStore([3, 2], [8, 1, 1, 1, 1], R, cutoff=5.0)
        >>> store.atoms([1, 0]).tolist()
        [3, 4, 0, 1, 2]
        """
        return _ranges(self._atom, np.asarray(molecules, np.int64))

    def batch(self, molecules: Iterable[int]) -> Graph:
        """Return the graph of the given molecules, in the given order.

        Examples
        --------
        >>> from dimenet_tf.graph import GraphStore
        >>> store = GraphStore([2, 1], [1, 1, 8], [[0, 0, 0], [0.74, 0, 0], [0, 0, 0]], cutoff=5.0)
        >>> graph = store.batch([1, 0])
        >>> graph.atomic_numbers.tolist(), graph.molecule_of_atom.tolist()
        ([8, 1, 1], [0, 1, 1])
        >>> graph.edge_source.tolist(), graph.edge_target.tolist()
        ([2, 1], [1, 2])
        """
        molecules = np.asarray(molecules, np.int64)
        num_atoms = self.num_atoms[molecules]
        num_edges = np.diff(self._edge)[molecules]
        atoms, edges, triplets = (_ranges(pieces, molecules) for pieces in (self._atom, self._edge, self._triplet))
        first_atom, first_edge = (_offsets(sizes)[:-1].astype(np.int32) for sizes in (num_atoms, num_edges))
        to_atom, to_edge = np.repeat(first_atom, num_edges), np.repeat(first_edge, num_edges)
        of_triplet = np.repeat(first_edge, np.diff(self._triplet)[molecules])
        return build_graph_numpy(
            self._numbers[atoms],
            self._positions[atoms],
            num_atoms,
            (self._source[edges] + to_atom, self._target[edges] + to_atom, self._reverse[edges] + to_edge),
            self.cutoff,
            self.needs,
            (self._kj[triplets] + of_triplet, self._ji[triplets] + of_triplet),
        )


def _offsets(counts: Sequence[int] | np.ndarray) -> np.ndarray:
    """Return the first element of each of consecutive pieces, and the end of the last one, (pieces + 1,) int64."""
    return np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])


def _ranges(offsets: np.ndarray, pieces: np.ndarray) -> np.ndarray:
    """Return the indices of the elements of the given pieces, concatenated."""
    counts = offsets[pieces + 1] - offsets[pieces]
    return np.repeat(offsets[pieces] - (np.cumsum(counts) - counts), counts) + np.arange(counts.sum())
