"""Neighbor lists of molecules and crystals in motion."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import ArrayLike

from dimenet_tf.errors import UserError
from dimenet_tf.graph.build_numpy import (
    Edges,
    build_graph_numpy,
    edge_vectors_numpy,
    find_edges,
    join_edges,
    piece_offsets,
)
from dimenet_tf.graph.graph import FAR, Graph, check_needs
from dimenet_tf.structures.cells import lattice_inverse, lattice_offsets
from dimenet_tf.structures.limits import centered


class SkinList:
    """Neighbors of structures whose atoms, and cells, move a little from call to call.

    Pairs of a structure up to `cutoff` + `skin` apart are searched for again only when one of its other pairs may have
    come within the cutoff: when an atom has moved by more than half the skin, or the cell and an atom together have.
    Every graph holds exactly the pairs within the cutoff, as `GraphStore` finds them.

    Parameters
    ----------
    Z : (atoms,) int, atomic numbers
    cutoff, skin : float, Angstrom
    needs : a model's `needs`
    dtype : of the positions, "float32" or "float64"
    pbc : (3,) or (structures, 3) bool, the periodic directions; none by default
    far_cutoff : float, Angstrom, of "far_edges"
    N : (structures,) int, atoms of each structure; one structure of all atoms by default

    Raises
    ------
    UserError
        For an unknown name in `needs`.

    Examples
    --------
    >>> import numpy as np
    >>> from dimenet_tf.graph import SkinList
    >>> neighbors = SkinList([8, 1, 1], cutoff=5.0, skin=0.5, needs=["triplets"], dtype="float32")
    >>> R = np.array([[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]])
    >>> before = neighbors.graph(R)
    >>> after = neighbors.graph(R + [[0.1, 0, 0], [0, 0, 0], [0, 0, 0]])
    >>> after.edge_source is before.edge_source, neighbors.searches
    (True, 1)

    Two hydrogen molecules, which do not see each other:

    >>> neighbors = SkinList([1, 1, 1, 1], cutoff=5.0, skin=0.5, needs=(), dtype="float32", N=[2, 2])
    >>> neighbors.graph([[0, 0, 0], [0.74, 0, 0], [0, 0, 0], [0.74, 0, 0]]).edge_source.tolist()
    [1, 0, 3, 2]
    """

    def __init__(
        self,
        Z: ArrayLike,
        cutoff: float,
        skin: float,
        needs: Iterable[str],
        dtype: str,
        pbc: ArrayLike | None = None,
        far_cutoff: float | None = None,
        N: ArrayLike | None = None,
    ) -> None:
        self.Z = np.asarray(Z, np.int32)
        self.N = np.array([len(self.Z)] if N is None else N, np.int32)
        self.cutoff, self.skin, self.needs, self.dtype = cutoff, skin, check_needs(needs), np.dtype(dtype)
        self.far_cutoff = far_cutoff if self.needs & FAR else None
        self.pbc = np.broadcast_to(np.asarray(False if pbc is None else pbc, bool), (len(self.N), 3))
        self.searches = 0
        """Number of neighbor searches of a structure up to now."""
        self.closest = np.inf
        """Smallest squared distance of two atoms in the last graph."""
        self._atom = piece_offsets(self.N)
        self._structure = np.repeat(np.arange(len(self.N)), self.N)
        self._positions: np.ndarray | None = None  # of the last search, in the cell
        self._near: np.ndarray | None = None  # whether each pair found then is in the last graph
        self._near_far: np.ndarray | None = None
        # of the last search of each structure
        self._offsets = np.zeros((len(self.Z), 3), np.int64)
        self._cell, self._inverse = np.zeros((2, len(self.N), 3, 3))
        self._found: list[Edges] = [Edges(*np.empty((2, 0), np.int32))] * len(self.N)
        self._found_reverse: list[np.ndarray] = [np.empty(0, np.int32)] * len(self.N)
        self._found_far = list(self._found)

    def __repr__(self) -> str:
        structures = f"{len(self.N)} structures, " if len(self.N) > 1 else ""
        sizes = f"{structures}{len(self.Z)} atoms"
        return f"SkinList({sizes}; cutoff {self.cutoff:g} Ang, skin {self.skin:g} Ang; {self.dtype})"

    def graph(self, R: ArrayLike, cell: ArrayLike | None = None) -> Graph:
        """Return the graph for positions R, (atoms, 3), Angstrom; those of molecules alone are not centered.

        As long as no pair crosses the cutoff, the index arrays are the same objects as in the graph before.

        Parameters
        ----------
        R : (atoms, 3), Angstrom. Those of periodic structures are put into the cell at every search
        cell : (3, 3) or (structures, 3, 3), Angstrom, where a structure is periodic, zero for molecules; it may differ
            from call to call

        Raises
        ------
        UserError
            For a periodic structure without a cell.

        Examples
        --------
        >>> from dimenet_tf.graph import SkinList
        >>> neighbors = SkinList([1, 1], cutoff=5.0, skin=0.5, needs=(), dtype="float64")
        >>> neighbors.graph([[0, 0, 0], [0.74, 0, 0]]).edge_source.tolist()
        [1, 0]
        >>> neighbors.graph([[0, 0, 0], [5.01, 0, 0]]).edge_source.tolist()
        []
        """
        if self.pbc.any() and cell is None:
            raise UserError("the structure is periodic, so that its graph needs a cell, (3, 3)")
        lattice = np.asarray(cell, np.float64).reshape(-1, 3, 3) if self.pbc.any() else None
        R = np.ascontiguousarray(R, self.dtype if lattice is None else np.float64)
        inside = self._inside(R, lattice)
        if self._positions is None:
            self._positions = np.empty_like(R)
            renewed = np.arange(len(self.N))
        else:
            renewed = np.flatnonzero(self._may_have_come_near(inside, lattice))
        if len(renewed):
            self._search(renewed, R, lattice)
            inside = self._inside(R, lattice)
        positions = inside if lattice is None else centered(self.N, inside).astype(self.dtype)
        square = self._square(positions, self._edges, lattice, self._edge)
        near = np.sqrt(square) <= self.dtype.type(self.cutoff)  # as `find_edges`
        self.closest = square.min(initial=np.inf)
        near_far = None
        if self.far_cutoff is not None:
            far = np.sqrt(self._square(positions, self._far, lattice, self._far_edge))
            near_far = far <= self.dtype.type(self.far_cutoff)
        if not _same(near, self._near) or not _same(near_far, self._near_far):
            self._near, self._near_far = near, near_far
            self._graph = self._connect(positions, near, near_far, lattice)
        if lattice is None:
            return self._graph._replace(positions=positions)
        return self._graph._replace(positions=positions, cell=lattice.astype(self.dtype))

    def _inside(self, R: np.ndarray, lattice: np.ndarray | None) -> np.ndarray:
        """Return positions with the atoms of periodic structures where the last search put them."""
        return R if lattice is None else R - _times(self._offsets, lattice[self._structure])

    def _square(self, positions: np.ndarray, edges: Edges, lattice: np.ndarray | None, first: np.ndarray) -> np.ndarray:
        """Return the squared lengths of edges; those of structure i begin at `first[i]`."""
        cell = None if lattice is None else np.repeat(lattice.astype(self.dtype), np.diff(first), axis=0)
        vectors = edge_vectors_numpy(positions, edges, cell)
        return (vectors * vectors).sum(axis=1)

    def _may_have_come_near(self, positions: np.ndarray, lattice: np.ndarray | None) -> np.ndarray:
        """Return for each structure whether a pair that the last search left out may now be within the cutoff.

        The cell's deformation F shortens a distance d to no less than its smallest singular value times d; what the
        atoms move on top of it counts twice.
        """
        before, shortest = self._positions, np.ones(len(self.N))
        assert before is not None  # there was a search
        if lattice is not None:
            unit = np.eye(3) - self._inverse @ self._cell  # of the directions that are not periodic
            deformation = self._inverse @ lattice + unit
            before = _times(before, deformation[self._structure])
            shortest = np.linalg.svd(deformation, compute_uv=False).min(axis=1)
        drift = centered(self.N, positions - before)  # a common shift changes no distance
        moved = np.sqrt(np.maximum.reduceat((drift * drift).sum(axis=1), self._atom[:-1]))
        reach = max(self.cutoff, self.far_cutoff or 0)
        return shortest * (reach + self.skin) - 2 * moved < reach

    def _connect(
        self, R: np.ndarray, near: np.ndarray, near_far: np.ndarray | None, lattice: np.ndarray | None
    ) -> Graph:
        """Return the graph of the given pairs."""
        # both directions of a pair are equally long: no edge loses its reverse
        reverse = (np.cumsum(near, dtype=np.int32) - 1)[self._reverse[near]]
        return build_graph_numpy(
            self.Z,
            R,
            self.N,
            self._edges.select(near),
            self.cutoff,
            self.needs,
            reverse=reverse,
            cell=lattice,
            far=None if near_far is None else self._far.select(near_far),
            far_cutoff=self.far_cutoff,
        )

    def _search(self, structures: np.ndarray, R: np.ndarray, lattice: np.ndarray | None) -> None:
        """Search for the neighbors of some structures."""
        assert self._positions is not None  # filled here
        for i in structures:
            atoms = slice(self._atom[i], self._atom[i + 1])
            cell: tuple[np.ndarray, ...] = ()
            inside = R[atoms]
            if lattice is not None:
                cell = (lattice[i], self.pbc[i])
                self._offsets[atoms] = lattice_offsets(inside, *cell)
                self._cell[i] = np.where(self.pbc[i, :, None], lattice[i], 0.0)
                self._inverse[i] = lattice_inverse(*cell)
                inside = inside - self._offsets[atoms] @ lattice[i]
            self._positions[atoms] = inside
            self._found[i] = find_edges(inside, self.cutoff + self.skin, *cell)
            self._found_reverse[i] = self._found[i].reverse()
            if self.far_cutoff is not None:
                self._found_far[i] = find_edges(inside, self.far_cutoff + self.skin, *cell)
        self._edges, self._edge = self._join(self._found)
        self._far, self._far_edge = self._join(self._found_far)
        self._reverse = np.concatenate(self._found_reverse) + np.repeat(self._edge[:-1], np.diff(self._edge))
        self._near = None
        self.searches += len(structures)

    def _join(self, parts: list[Edges]) -> tuple[Edges, np.ndarray]:
        """Return the edges of all structures with the numbers of all atoms, and the first edge of each structure."""
        edges, first = join_edges(parts, bool(self.pbc.any()))
        return edges.moved(np.repeat(self._atom[:-1], np.diff(first)).astype(np.int32)), first


def _times(vectors: np.ndarray, matrices: np.ndarray) -> np.ndarray:
    """Return each vector, as a row, times its matrix, (n, 3)."""
    return np.einsum("ni,nij->nj", vectors, matrices)


def _same(a: np.ndarray | None, b: np.ndarray | None) -> bool:
    return a is b if a is None or b is None else np.array_equal(a, b)
