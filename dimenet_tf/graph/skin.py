"""Neighbor list of one molecule or crystal in motion."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import ArrayLike

from dimenet_tf.errors import UserError
from dimenet_tf.graph.build_numpy import Edges, build_graph_numpy, edge_vectors_numpy, find_edges
from dimenet_tf.graph.graph import FAR, Graph, check_needs
from dimenet_tf.structures.cells import lattice_inverse, lattice_offsets


class SkinList:
    """Neighbors of a structure whose atoms, and cell, move a little from call to call.

    Pairs up to `cutoff` + `skin` apart are searched for again only when one of the others may have come within the
    cutoff: when an atom has moved by more than half the skin, or the cell and an atom together have. Every graph holds
    exactly the pairs within the cutoff, as `GraphStore` finds them.

    Parameters
    ----------
    Z : (atoms,) int, atomic numbers
    cutoff, skin : float, Angstrom
    needs : a model's `needs`
    dtype : of the positions, "float32" or "float64"
    pbc : (3,) bool, the periodic directions; none by default
    far_cutoff : float, Angstrom, of "far_edges"

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
    ) -> None:
        self.Z = np.asarray(Z, np.int32)
        self.cutoff, self.skin, self.needs, self.dtype = cutoff, skin, check_needs(needs), np.dtype(dtype)
        self.far_cutoff = far_cutoff if self.needs & FAR else None
        self.pbc = np.zeros(3, bool) if pbc is None else np.broadcast_to(np.asarray(pbc, bool), 3)
        self.searches = 0
        """Number of neighbor searches up to now."""
        self.closest = np.inf
        """Smallest squared distance of two atoms in the last graph."""
        self._positions: np.ndarray | None = None  # of the last search, in the cell
        self._near: np.ndarray | None = None  # whether each pair found then is in the last graph
        self._near_far: np.ndarray | None = None

    def __repr__(self) -> str:
        return f"SkinList({len(self.Z)} atoms; cutoff {self.cutoff:g} Ang, skin {self.skin:g} Ang; {self.dtype})"

    def graph(self, R: ArrayLike, cell: ArrayLike | None = None) -> Graph:
        """Return the graph for positions R, (atoms, 3), Angstrom, which are not centered.

        As long as no pair crosses the cutoff, the index arrays are the same objects as in the graph before.

        Parameters
        ----------
        R : (atoms, 3), Angstrom. Those of periodic structures are put into the cell at every search
        cell : (3, 3), Angstrom, for a periodic structure; it may differ from call to call

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
        lattice = np.asarray(cell, np.float64) if self.pbc.any() else None
        inside = R = np.ascontiguousarray(R, self.dtype if lattice is None else np.float64)
        if lattice is not None and self._positions is not None:
            inside = R - self._offsets @ lattice
        if self._positions is None or self._may_have_come_near(inside, lattice):
            self._search(R, lattice)
            inside = R if lattice is None else R - self._offsets @ lattice
        positions = inside if lattice is None else (inside - inside.mean(axis=0)).astype(self.dtype)
        square = self._square(positions, self._edges, lattice)
        near = np.sqrt(square) <= self.dtype.type(self.cutoff)  # as `find_edges`
        self.closest = square.min(initial=np.inf)
        near_far = None
        if self.far_cutoff is not None:
            near_far = np.sqrt(self._square(positions, self._far, lattice)) <= self.dtype.type(self.far_cutoff)
        if not _same(near, self._near) or not _same(near_far, self._near_far):
            self._near, self._near_far = near, near_far
            self._graph = self._connect(positions, near, near_far, lattice)
        if lattice is None:
            return self._graph._replace(positions=positions)
        return self._graph._replace(positions=positions, cell=lattice[None].astype(self.dtype))

    def _square(self, positions: np.ndarray, edges: Edges, cell: np.ndarray | None) -> np.ndarray:
        vectors = edge_vectors_numpy(positions, edges, cell)
        return (vectors * vectors).sum(axis=1)

    def _may_have_come_near(self, positions: np.ndarray, cell: np.ndarray | None) -> bool:
        """Return whether a pair that the last search left out may now be within the cutoff.

        The cell's deformation F shortens a distance d to no less than its smallest singular value times d; what the
        atoms move on top of it counts twice.
        """
        before, shortest = self._positions, 1.0
        if cell is not None:
            unit = np.eye(3) - self._inverse @ self._cell  # of the directions that are not periodic
            deformation = self._inverse @ cell + unit
            before = before @ deformation
            shortest = np.linalg.svd(deformation, compute_uv=False).min()
        drift = positions - before
        moved = np.sqrt(np.square(drift - drift.mean(axis=0)).sum(axis=1).max())  # a common shift changes no distance
        reach = max(self.cutoff, self.far_cutoff or 0)
        return bool(shortest * (reach + self.skin) - 2 * moved < reach)

    def _connect(self, R: np.ndarray, near: np.ndarray, near_far: np.ndarray | None, cell: np.ndarray | None) -> Graph:
        """Return the graph of the given pairs."""
        # both directions of a pair are equally long: no edge loses its reverse
        reverse = (np.cumsum(near, dtype=np.int32) - 1)[self._reverse[near]]
        return build_graph_numpy(
            self.Z,
            R,
            np.array([len(self.Z)], np.int32),
            self._edges.select(near),
            self.cutoff,
            self.needs,
            reverse=reverse,
            cell=None if cell is None else cell[None],
            far=None if near_far is None else self._far.select(near_far),
            far_cutoff=self.far_cutoff,
        )

    def _search(self, R: np.ndarray, cell: np.ndarray | None) -> None:
        inside = R
        lattice: tuple[np.ndarray, ...] = ()
        if cell is not None:
            self._offsets = lattice_offsets(R, cell, self.pbc)
            self._cell = np.where(self.pbc[:, None], cell, 0.0)
            self._inverse = lattice_inverse(cell, self.pbc)
            inside = R - self._offsets @ cell
            lattice = (cell, self.pbc)
        self._edges = find_edges(inside, self.cutoff + self.skin, *lattice)
        self._reverse = self._edges.reverse()
        if self.far_cutoff is not None:
            self._far = find_edges(inside, self.far_cutoff + self.skin, *lattice)
        self._positions, self._near = inside.copy(), None
        self.searches += 1


def _same(a: np.ndarray | None, b: np.ndarray | None) -> bool:
    return a is b if a is None or b is None else np.array_equal(a, b)
