"""Molecules whose neighbors are searched for once, and any number of batches of them."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import ArrayLike

from dimenet_tf.graph.build_numpy import (
    Edges,
    build_graph_numpy,
    find_edges,
    find_triplets,
    join_edges,
    piece_offsets,
)
from dimenet_tf.graph.graph import FAR, Graph, check_needs
from dimenet_tf.structures.cells import make_cells, wrapped
from dimenet_tf.structures.limits import centered


class GraphStore:
    """Molecules and crystals with their edges, and triplets where they are needed, in flat arrays.

    Neighbors are searched for once, when the store is made. `model.graph_store(N, Z, R)` makes one with the model's
    cutoffs, needs and dtype. Models refuse graphs that were made with other ones.

    Parameters
    ----------
    N : (molecules,) int, atoms of each molecule
    Z : (sum N,) int, atomic numbers
    R : (sum N, 3) float, positions in Angstrom. Graphs have positions relative to the centroid of each molecule, and
        the atoms of periodic structures in their cells
    cutoff : float, Angstrom
    needs : the optional index arrays to make, of "atom_edges", "triplets" and "far_edges"; a model's `needs`
    dtype : of the positions, "float32" or "float64"; whether a pair is an edge is decided in it
    cell : (molecules, 3, 3) float, Angstrom, rows are lattice vectors; None for molecules
    pbc : (molecules, 3) bool, the periodic directions; by default those whose lattice vector is not zero
    far_cutoff : float, Angstrom, of "far_edges"

    Raises
    ------
    UserError
        For an unknown name in `needs`, and for a `cell` or `pbc` of another shape.

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

    Copper, each atom of which has twelve neighbors, all of them images of the one atom in the cell:

    >>> cell = [[[0, 1.8, 1.8], [1.8, 0, 1.8], [1.8, 1.8, 0]]]
    >>> GraphStore([1], [29], [[0, 0, 0]], cutoff=3.0, cell=cell).batch([0])
    Graph(..., edge_source (12,), ..., edge_image (12, 3), cell (1, 3, 3), cutoff 3 Ang)
    """

    def __init__(
        self,
        N: ArrayLike,
        Z: ArrayLike,
        R: ArrayLike,
        cutoff: float,
        needs: Iterable[str] = (),
        dtype: str = "float32",
        cell: ArrayLike | None = None,
        pbc: ArrayLike | None = None,
        far_cutoff: float | None = None,
    ) -> None:
        self.cutoff, self.needs, self.dtype = float(cutoff), check_needs(needs), np.dtype(dtype).name
        self.far_cutoff = far_cutoff if self.needs & FAR else None
        self.num_atoms = np.asarray(N, np.int32)
        self.cells = make_cells(cell, pbc, len(self.num_atoms))
        self._atom = piece_offsets(self.num_atoms)
        self._numbers = np.asarray(Z, np.int32)
        inside = np.asarray(R) if self.cells is None else wrapped(self.num_atoms, np.asarray(R), self.cells)
        self._positions = centered(self.num_atoms, inside).astype(dtype)
        parts = [self._connect(i) for i in range(len(self))]
        columns = list(zip(*parts)) or [[]] * 5
        self._edges, self._edge = join_edges(columns[0], self.cells is not None)
        self._far, self._far_edge = join_edges(columns[4], self.cells is not None)
        self._triplet = piece_offsets([len(kj) for kj in columns[2]])
        empty = np.empty(0, np.int32)
        self._reverse, self._kj, self._ji = (np.concatenate([empty, *column]) for column in columns[1:4])

    def _connect(self, molecule: int) -> tuple[Edges, np.ndarray, np.ndarray, np.ndarray, Edges]:
        """Find edges, their reverses, triplets and far edges of one molecule."""
        positions = self._positions[self._atom[molecule] : self._atom[molecule + 1]]
        cell = () if self.cells is None else (self.cells.cell[molecule], self.cells.pbc[molecule])
        edges = find_edges(positions, self.cutoff, *cell)
        far = edges.select(slice(0)) if self.far_cutoff is None else find_edges(positions, self.far_cutoff, *cell)
        reverse = edges.reverse()
        kj = ji = np.empty(0, np.int32)
        if "triplets" in self.needs:
            kj, ji = find_triplets(edges.source, edges.target, reverse, len(positions))
        return edges, reverse, kj, ji, far

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
        target = self._edges.target + np.repeat(self._atom[:-1], np.diff(self._edge))
        degree = np.bincount(target, minlength=self._atom[-1])
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
        first_atom = piece_offsets(num_atoms)[:-1].astype(np.int32)

        def take(edges: Edges, pieces: np.ndarray) -> Edges:
            """Return the edges of these molecules, with the numbers of their atoms in the batch."""
            return edges.select(_ranges(pieces, molecules)).moved(np.repeat(first_atom, np.diff(pieces)[molecules]))

        num_edges = np.diff(self._edge)[molecules]
        first_edge = piece_offsets(num_edges)[:-1].astype(np.int32)
        of_triplet = np.repeat(first_edge, np.diff(self._triplet)[molecules])
        atoms, edges, triplets = (_ranges(pieces, molecules) for pieces in (self._atom, self._edge, self._triplet))
        return build_graph_numpy(
            self._numbers[atoms],
            self._positions[atoms],
            num_atoms,
            take(self._edges, self._edge),
            self.cutoff,
            self.needs,
            reverse=self._reverse[edges] + np.repeat(first_edge, num_edges),
            triplets=(self._kj[triplets] + of_triplet, self._ji[triplets] + of_triplet),
            cell=None if self.cells is None else self.cells.cell[molecules],
            far=None if self.far_cutoff is None else take(self._far, self._far_edge),
            far_cutoff=self.far_cutoff,
        )


def _ranges(offsets: np.ndarray, pieces: np.ndarray) -> np.ndarray:
    """Return the indices of the elements of the given pieces, concatenated."""
    counts = offsets[pieces + 1] - offsets[pieces]
    return np.repeat(offsets[pieces] - (np.cumsum(counts) - counts), counts) + np.arange(counts.sum())
