"""Neighbor list of one molecule in motion."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import ArrayLike

from dimenet_tf.graph.build_numpy import build_graph_numpy, find_edges, find_reverse
from dimenet_tf.graph.graph import Graph, check_needs


class SkinList:
    """Neighbors of a molecule whose atoms move a little from call to call.

    Pairs up to `cutoff` + `skin` apart are searched for again only when an atom has moved by more than half the skin.
    Every graph holds exactly the pairs within the cutoff, as `GraphStore` finds them.

    Parameters
    ----------
    Z : (atoms,) int, atomic numbers
    cutoff, skin : float, Angstrom
    needs : a model's `needs`
    dtype : of the positions, "float32" or "float64"

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

    def __init__(self, Z: ArrayLike, cutoff: float, skin: float, needs: Iterable[str], dtype: str) -> None:
        self.Z = np.asarray(Z, np.int32)
        self.cutoff, self.skin, self.needs, self.dtype = cutoff, skin, check_needs(needs), np.dtype(dtype)
        self.searches = 0
        """Number of neighbor searches up to now."""
        self.closest = np.inf
        """Smallest squared distance of two atoms in the last graph."""
        self._positions: np.ndarray | None = None  # of the last search
        self._near: np.ndarray | None = None  # whether each pair found then is in the last graph

    def __repr__(self) -> str:
        return f"SkinList({len(self.Z)} atoms; cutoff {self.cutoff:g} Ang, skin {self.skin:g} Ang; {self.dtype})"

    def graph(self, R: ArrayLike) -> Graph:
        """Return the graph for positions R, (atoms, 3), Angstrom, which are not centered.

        As long as no pair crosses the cutoff, the index arrays are the same objects as in the graph before.

        Examples
        --------
        >>> from dimenet_tf.graph import SkinList
        >>> neighbors = SkinList([1, 1], cutoff=5.0, skin=0.5, needs=(), dtype="float64")
        >>> neighbors.graph([[0, 0, 0], [0.74, 0, 0]]).edge_source.tolist()
        [1, 0]
        >>> neighbors.graph([[0, 0, 0], [5.01, 0, 0]]).edge_source.tolist()
        []
        """
        R = np.ascontiguousarray(R, self.dtype)
        if self._positions is None or np.square(R - self._positions).sum(axis=1).max() > (self.skin / 2) ** 2:
            self._search(R)
        vectors = R[self._source] - R[self._target]
        square = (vectors * vectors).sum(axis=1)
        near = np.sqrt(square) <= self.dtype.type(self.cutoff)  # as `find_edges`
        self.closest = square.min(initial=np.inf)
        if self._near is None or not np.array_equal(near, self._near):
            self._near, self._graph = near, self._connect(R, near)
        return self._graph._replace(positions=R)

    def _connect(self, R: np.ndarray, near: np.ndarray) -> Graph:
        """Return the graph of the given pairs."""
        # both directions of a pair are equally long: no edge loses its reverse
        reverse = (np.cumsum(near, dtype=np.int32) - 1)[self._reverse[near]]
        edges = self._source[near], self._target[near], reverse
        return build_graph_numpy(self.Z, R, np.array([len(self.Z)], np.int32), edges, self.cutoff, self.needs)

    def _search(self, R: np.ndarray) -> None:
        self._source, self._target = find_edges(R, self.cutoff + self.skin)
        self._reverse = find_reverse(self._source, self._target)
        self._positions, self._near = R.copy(), None
        self.searches += 1
