"""Many molecules whose connectivity is computed once and cut into batches any number of times."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import ArrayLike

from dimenet_tf.graph.graph import Graph, check_needs
from dimenet_tf.graph.neighbors import find_edges, find_reverse, find_triplets, neighbor_table
from dimenet_tf.structures.limits import centered


class GraphStore:
    """Molecules with their edges (and triplets), held in flat arrays.

    `model.graph_store(N, Z, R)` makes one with the model's cutoff, needs and dtype. Models refuse graphs that were made
    with other ones.

    Parameters
    ----------
    N : (molecules,) int, atoms of each molecule
    Z : (sum N,) int, atomic numbers
    R : (sum N, 3) float, positions in Angstrom; graphs have them relative to the centroid of each molecule
    cutoff : float, Angstrom
    needs : the optional index arrays to make, of "atom_edges" and "triplets"; a model's `needs`
    dtype : of the positions, "float32" or "float64"; whether a pair is an edge is decided in it

    Raises
    ------
    UserError
        For an unknown name in `needs`.
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
        """Return (molecules,) int: the number of "atoms", "edges" or "triplets" of each molecule."""
        if of == "atoms":
            return np.diff(self._atom)
        if of == "edges":
            return np.diff(self._edge)
        # edges k -> j -> i with k != i: every atom j pairs its d edges in with its d edges out, less the d returns
        degree = np.bincount(self._target + np.repeat(self._atom[:-1], np.diff(self._edge)), minlength=self._atom[-1])
        return np.add.reduceat(np.append(degree * (degree - 1), 0), self._atom[:-1])

    def atoms(self, molecules: Iterable[int]) -> np.ndarray:
        """Return the numbers of the given molecules' atoms in the store's flat arrays."""
        return _ranges(self._atom, np.asarray(molecules, np.int64))

    def batch(self, molecules: Iterable[int]) -> Graph:
        """Return the graph of the given molecules, in the given order."""
        molecules = np.asarray(molecules, np.int64)
        num_atoms = self.num_atoms[molecules]
        atoms = _ranges(self._atom, molecules)
        edges = _ranges(self._edge, molecules)
        triplets = _ranges(self._triplet, molecules)
        first_atom = _offsets(num_atoms)[:-1].astype(np.int32)
        num_edges = np.diff(self._edge)[molecules]
        first_edge = _offsets(num_edges)[:-1].astype(np.int32)
        atom_shift = np.repeat(first_atom, num_edges)
        triplet_shift = np.repeat(first_edge, np.diff(self._triplet)[molecules])
        target = self._target[edges] + atom_shift
        return Graph(
            positions=self._positions[atoms],
            atomic_numbers=self._numbers[atoms],
            molecule_of_atom=np.repeat(np.arange(len(molecules), dtype=np.int32), num_atoms),
            num_atoms=num_atoms,
            edge_source=self._source[edges] + atom_shift,
            edge_target=target,
            edge_reverse=self._reverse[edges] + np.repeat(first_edge, num_edges),
            edge_shift=np.zeros((len(edges), 3), self._positions.dtype),
            cutoff=np.array(self.cutoff),
            atom_edges=neighbor_table(target, len(atoms)) if "atom_edges" in self.needs else (),
            triplet_kj=self._kj[triplets] + triplet_shift if "triplets" in self.needs else (),
            triplet_ji=self._ji[triplets] + triplet_shift if "triplets" in self.needs else (),
        )


def _offsets(counts: Sequence[int] | np.ndarray) -> np.ndarray:
    """Return where each of consecutive pieces begins and the last one ends, (pieces + 1,) int64."""
    return np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])


def _ranges(offsets: np.ndarray, pieces: np.ndarray) -> np.ndarray:
    """Return the concatenated element numbers of the given pieces."""
    counts = offsets[pieces + 1] - offsets[pieces]
    return np.repeat(offsets[pieces] - (np.cumsum(counts) - counts), counts) + np.arange(counts.sum())
