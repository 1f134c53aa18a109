"""Graphs from NumPy arrays: neighbor search, derived index arrays, and the function that assembles a `Graph` of them.

`dimenet_tf.graph.build_tensorflow` does the same in TensorFlow. Names of functions there end in `_tensorflow`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from dimenet_tf.graph.graph import FAR, Graph, OptionalArray, check_needs

ALL_PAIRS_LIMIT = 256  # atoms; up to here the full distance matrix is faster than a cell list


class Edges(NamedTuple):
    """Edges of a batch, sorted by (target, source, image).

    Examples
    --------
    >>> import numpy as np
    >>> from dimenet_tf.graph import find_edges
    >>> edges = find_edges(np.array([[0.0, 0, 0], [0.74, 0, 0]]), 5.0)
    >>> edges.source, edges.target
    (array([1, 0], dtype=int32), array([0, 1], dtype=int32))
    """

    source: np.ndarray
    """(edges,) int32."""
    target: np.ndarray
    """(edges,) int32, ascending."""
    image: np.ndarray | None = None
    """(edges, 3) int32; None where nothing is periodic."""

    def reverse(self) -> np.ndarray:
        """Find the edge i -> j of each edge j -> i; see `find_reverse`.

        Examples
        --------
        >>> import numpy as np
        >>> from dimenet_tf.graph import find_edges
        >>> find_edges(np.array([[0.0, 0, 0], [0.74, 0, 0]]), 5.0).reverse()
        array([1, 0], dtype=int32)
        """
        return find_reverse(*self)

    def select(self, which: np.ndarray | slice) -> Edges:
        """Return some of the edges, by mask or number.

        Examples
        --------
        >>> import numpy as np
        >>> from dimenet_tf.graph import find_edges
        >>> find_edges(np.array([[0.0, 0, 0], [0.74, 0, 0]]), 5.0).select(slice(1)).source
        array([1], dtype=int32)
        """
        return Edges(self.source[which], self.target[which], None if self.image is None else self.image[which])

    def moved(self, atoms: np.ndarray) -> Edges:
        """Return the edges with a number added to their atoms, (edges,) int.

        Examples
        --------
        >>> import numpy as np
        >>> from dimenet_tf.graph import find_edges
        >>> find_edges(np.array([[0.0, 0, 0], [0.74, 0, 0]]), 5.0).moved(np.array([10, 10])).source.tolist()
        [11, 10]
        """
        return self._replace(source=self.source + atoms, target=self.target + atoms)


def join_edges(parts: Sequence[Edges], periodic: bool) -> tuple[Edges, np.ndarray]:
    """Concatenate the edges of structures, each with the numbers of its own atoms.

    Parameters
    ----------
    parts : edges of each structure
    periodic : whether any structure is periodic; the images of molecules are then zero

    Returns
    -------
    edges : Edges
    offsets : (structures + 1,) int, the first edge of each, and the end
    """
    empty = np.empty(0, np.int32)
    source, target = (np.concatenate([empty, *(part[axis] for part in parts)]) for axis in (0, 1))
    none = np.empty((0, 3), np.int32)
    image = (
        np.concatenate([none, *(none if part.image is None else part.image for part in parts)]) if periodic else None
    )
    return Edges(source, target, image), piece_offsets([len(part.source) for part in parts])


def piece_offsets(counts: Sequence[int] | np.ndarray) -> np.ndarray:
    """Return the first element of each of consecutive pieces, and the end of the last one, (pieces + 1,) int64."""
    return np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])


def build_graph_numpy(
    Z: np.ndarray,
    R: np.ndarray,
    num_atoms: np.ndarray,
    edges: Edges,
    cutoff: float,
    needs: Iterable[str] = (),
    *,
    reverse: np.ndarray | None = None,
    triplets: tuple[np.ndarray, np.ndarray] | None = None,
    cell: np.ndarray | None = None,
    far: Edges | None = None,
    far_cutoff: float | None = None,
) -> Graph:
    """Build the `Graph` of flat arrays of atoms and their edges.

    Positions and edges are taken as they are: neither centered nor searched for.

    Parameters
    ----------
    Z : (atoms,) int32, atomic numbers
    R : (atoms, 3) float32 or float64, positions in Angstrom
    num_atoms : (molecules,) int32, atoms of each molecule
    edges : Edges, sorted; with images if `cell` is given
    cutoff : float, Angstrom, up to which pairs are edges
    needs : the optional arrays to make, of "atom_edges", "triplets" and "far_edges"; a model's `needs`
    reverse, triplets : (edges,) int32, and triplet_kj, triplet_ji, where they are known already; otherwise they are
        found if they are needed
    cell : (molecules, 3, 3), Angstrom, zero for molecules; None if nothing is periodic
    far, far_cutoff : pairs up to the second cutoff, Angstrom, where they are needed

    Raises
    ------
    UserError
        For an unknown name in `needs`.

    Examples
    --------
    >>> import numpy as np
    >>> from dimenet_tf.graph import build_graph_numpy, find_edges
    >>> R = np.array([[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]], "float32")
    >>> edges = find_edges(R, 1.2)
    >>> build_graph_numpy(np.array([8, 1, 1], "int32"), R, np.array([3], "int32"), edges, 1.2, ["triplets"])
    Graph(positions (3, 3), ..., edge_source (4,), ..., triplet_kj (2,), triplet_ji (2,), cutoff 1.2 Ang)
    """
    needs = check_needs(needs)
    reverse = edges.reverse() if reverse is None else reverse
    kj: OptionalArray = ()
    ji: OptionalArray = ()
    if "triplets" in needs:
        kj, ji = find_triplets(edges.source, edges.target, reverse, len(Z)) if triplets is None else triplets
    graph = Graph(
        positions=R,
        atomic_numbers=Z,
        molecule_of_atom=np.repeat(np.arange(len(num_atoms), dtype=np.int32), num_atoms),
        num_atoms=num_atoms,
        edge_source=edges.source,
        edge_target=edges.target,
        edge_reverse=reverse,
        cutoff=np.array(cutoff, np.float64),
        atom_edges=neighbor_table(edges.target, len(Z)) if "atom_edges" in needs else (),
        triplet_kj=kj,
        triplet_ji=ji,
        edge_image=() if cell is None else edges.image,
        cell=() if cell is None else cell.astype(R.dtype),
    )
    if far is None or not needs & FAR:
        return graph
    with_far = graph._replace(
        far_source=far.source,
        far_target=far.target,
        far_image=() if cell is None else far.image,
        far_table=neighbor_table(far.target, len(Z)) if "far_table" in needs else (),
        far_cutoff=np.array(far_cutoff, np.float64),
    )
    return with_far.only(needs)


def find_edges(
    positions: np.ndarray, cutoff: float, cell: np.ndarray | None = None, pbc: np.ndarray | None = None
) -> Edges:
    """Find all ordered pairs of different atoms, or images of atoms, at most `cutoff` apart.

    The number of neighbors of an atom is not limited. Atoms may lie outside of the cell.

    Parameters
    ----------
    positions : (atoms, 3) float32 or float64, Angstrom
    cutoff : float, Angstrom. A pair at exactly the cutoff is an edge; distances are compared in the positions' dtype.
    cell, pbc : (3, 3) float, Angstrom, (3,) bool; None for a molecule

    Returns
    -------
    Edges

    Examples
    --------
    Water, whose hydrogen atoms are 1.5 Angstrom apart:

    >>> import numpy as np
    >>> from dimenet_tf.graph import find_edges
    >>> R = np.array([[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]])
    >>> edges = find_edges(R, 1.2)
    >>> list(zip(edges.source.tolist(), edges.target.tolist()))
    [(1, 0), (2, 0), (0, 1), (0, 2)]

    A chain of atoms, each 2 Angstrom from the next:

    >>> chain = find_edges(np.zeros((1, 3)), 3.0, np.diag([2.0, 0, 0]), np.array([True, False, False]))
    >>> chain.source.tolist(), chain.target.tolist(), chain.image.tolist()
    ([0, 0], [0, 0], [[-1, 0, 0], [1, 0, 0]])
    """
    cutoff = positions.dtype.type(cutoff)
    if cell is not None and pbc is not None and pbc.any():
        return _find_images(positions, cutoff, np.where(pbc[:, None], np.asarray(cell, np.float64), 0.0), pbc)
    if len(positions) <= ALL_PAIRS_LIMIT:
        target, source = np.divmod(np.arange(len(positions) ** 2), max(len(positions), 1))
    else:
        from scipy.spatial import cKDTree  # slow to import

        # the tree works in float64: search a little farther, decide in the positions' dtype below
        pairs = cKDTree(positions).query_pairs(float(cutoff) * (1 + 1e-5), output_type="ndarray")
        a, b = pairs.T
        wide = np.int64(len(positions))
        # one number for each pair: sorting them is five times faster than sorting by two keys
        target, source = np.divmod(np.sort(np.concatenate([a * wide + b, b * wide + a])), wide)
    vectors = positions[source] - positions[target]
    near = (np.sqrt((vectors * vectors).sum(axis=1)) <= cutoff) & (source != target)
    image = None if cell is None else np.zeros((np.count_nonzero(near), 3), np.int32)
    return Edges(source[near].astype(np.int32), target[near].astype(np.int32), image)


def _find_images(positions: np.ndarray, cutoff: float, cell: np.ndarray, pbc: np.ndarray) -> Edges:
    """Find the edges of a periodic structure."""
    from vesin import NeighborList  # type: ignore[import-untyped]  # its library takes a while to load

    box = cell
    if not pbc.all():  # in directions that are not periodic a box is long enough to have no images within the cutoff
        extent = np.linalg.norm(np.ptp(positions, axis=0)) + 2 * float(cutoff) + 1
        across = np.linalg.svd(cell)[2][pbc.sum() :]  # orthonormal to all lattice vectors
        box = cell.copy()
        box[~pbc] = across * extent
    points = np.asarray(positions, np.float64)
    search = NeighborList(cutoff=float(cutoff) * (1 + 1e-5), full_list=True)
    target, source, image, distance = search.compute(points=points, box=box, periodic=True, quantities="ijSd")
    found = Edges(source.astype(np.int64), target.astype(np.int64), image)
    near = distance <= cutoff
    # vesin works in float64: pairs whose distance rounding may bring to the cutoff are decided in the positions' dtype
    size = np.abs(positions).max(initial=0) + cutoff + (np.abs(image).max(axis=0, initial=0) @ np.abs(cell)).max()
    close = np.flatnonzero(np.abs(distance - cutoff) <= 16 * np.finfo(positions.dtype).eps * size)
    vectors = edge_vectors_numpy(positions, found.select(close), cell)
    near[close] = np.sqrt((vectors * vectors).sum(axis=1)) <= cutoff
    # sorting the keys and reading the edges off them is three times as fast as sorting the edges by them
    wide, reach = len(positions), np.abs(image).max(axis=0, initial=0).astype(np.int64)
    keys = np.sort(_edge_keys(*found, wide, reach)[near], kind="stable")
    images = np.stack(np.meshgrid(*(np.arange(-r, r + 1) for r in reach), indexing="ij"), axis=-1).reshape(-1, 3)
    pair = keys // len(images)
    target = pair // wide
    source = pair - target * wide
    image = images.astype(np.int32)[keys - pair * len(images)]
    return Edges(source.astype(np.int32), target.astype(np.int32), image)


def edge_vectors_numpy(positions: np.ndarray, edges: Edges, cell: np.ndarray | None) -> np.ndarray:
    """Return the vector of every edge from its target to its source, (edges, 3).

    The difference of the atoms comes before the shift, so that the vector of the reverse edge is exactly the negative.

    Parameters
    ----------
    positions : (atoms, 3), Angstrom
    edges : of one structure, or of several with a cell for each edge
    cell : (3, 3), or (edges, 3, 3); None for molecules
    """
    vectors = positions[edges.source] - positions[edges.target]
    if edges.image is None or cell is None:
        return vectors
    a, b, c = np.moveaxis(np.asarray(cell, positions.dtype), -2, 0)
    i, j, k = edges.image.T.astype(positions.dtype)[:, :, None]
    return vectors + (i * a + j * b + k * c)


def _edge_keys(
    source: np.ndarray, target: np.ndarray, image: np.ndarray | None, atoms: int, reach: np.ndarray | None
) -> np.ndarray:
    """Return a number for each edge that orders edges by (target, source, image), (edges,) int64.

    Parameters
    ----------
    source, target : (edges,) int64, less than `atoms`
    image : (edges, 3) int, at most `reach` (3,) int64 in size
    """
    key = target * np.int64(atoms) + source
    if image is None or reach is None:
        return key
    x, y, z = image.T
    wide_x, wide_y, wide_z = 2 * reach + 1
    # multiplied out, so that a pass over the edges has few large temporary arrays
    key *= wide_x * wide_y * wide_z
    key += x * (wide_y * wide_z) + y * wide_z + z
    return key + reach @ [wide_y * wide_z, wide_z, 1]


def find_reverse(edge_source: np.ndarray, edge_target: np.ndarray, edge_image: np.ndarray | None = None) -> np.ndarray:
    """Find the edge i -> j of each edge j -> i. Its image is the opposite one.

    Parameters
    ----------
    edge_source, edge_target : (edges,) int, sorted by (target, source, image), with both directions of every pair
    edge_image : (edges, 3) int, None for molecules

    Returns
    -------
    edge_reverse : (edges,) int32

    Examples
    --------
    >>> import numpy as np
    >>> from dimenet_tf.graph import find_reverse
    >>> source, target = np.array([1, 2, 0, 0]), np.array([0, 0, 1, 2])  # 1 -> 0, 2 -> 0, 0 -> 1, 0 -> 2
    >>> find_reverse(source, target).tolist()
    [2, 3, 0, 1]
    >>> find_reverse(np.array([0, 0]), np.array([0, 0]), np.array([[-1, 0, 0], [1, 0, 0]])).tolist()
    [1, 0]
    """
    opposite = reach = None
    if edge_image is not None:
        opposite, reach = -edge_image, np.abs(edge_image).max(axis=0, initial=0).astype(np.int64)
    atoms = max(edge_source.max(initial=0), edge_target.max(initial=0)) + 1
    # edges sorted as their reverses would be are the reverse edges in order
    keys = _edge_keys(edge_target.astype(np.int64), edge_source.astype(np.int64), opposite, atoms, reach)
    return np.argsort(keys, kind="stable").astype(np.int32)


def neighbor_table(edge_target: np.ndarray, num_atoms: int) -> np.ndarray:
    """List the edges that go to each atom.

    Parameters
    ----------
    edge_target : (edges,) int, ascending
    num_atoms : int, number of atoms in the batch

    Returns
    -------
    atom_edges : (num_atoms, max_neighbors) int32, filled up with -1

    Examples
    --------
    >>> import numpy as np
    >>> from dimenet_tf.graph import neighbor_table
    >>> neighbor_table(np.array([0, 0, 1, 2]), num_atoms=4).tolist()
    [[0, 1], [2, -1], [3, -1], [-1, -1]]
    """
    degree = np.bincount(edge_target, minlength=num_atoms)
    first = np.concatenate([[0], np.cumsum(degree)])
    table = np.full((num_atoms, np.max(degree, initial=0)), -1, np.int32)
    edges = np.arange(len(edge_target), dtype=np.int32)
    table[edge_target, edges - first[edge_target]] = edges
    return table


def find_triplets(
    edge_source: np.ndarray, edge_target: np.ndarray, edge_reverse: np.ndarray, num_atoms: int
) -> tuple[np.ndarray, np.ndarray]:
    """Find all pairs of edges k -> j -> i that are not each other's reverse.

    Parameters
    ----------
    edge_source, edge_target, edge_reverse : (edges,) int32, sorted by (target, source)
    num_atoms : int, number of atoms in the batch

    Returns
    -------
    triplet_kj, triplet_ji : (triplets,) int32, edges, sorted by (ji, k)

    Examples
    --------
    Water without an edge between its hydrogen atoms, which has the paths 2 -> 0 -> 1 and 1 -> 0 -> 2:

    >>> import numpy as np
    >>> from dimenet_tf.graph import find_reverse, find_triplets
    >>> source, target = np.array([1, 2, 0, 0]), np.array([0, 0, 1, 2])
    >>> kj, ji = find_triplets(source, target, find_reverse(source, target), num_atoms=3)
    >>> [(source[a].item(), source[b].item(), target[b].item()) for a, b in zip(kj, ji)]
    [(2, 0, 1), (1, 0, 2)]
    """
    degree = np.bincount(edge_target, minlength=num_atoms)
    first = np.concatenate([[0], np.cumsum(degree)])
    count = degree[edge_source]  # edges that come into j, one of them from i
    triplet_ji = np.repeat(np.arange(len(edge_source)), count)
    within = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
    triplet_kj = first[edge_source[triplet_ji]] + within
    keep = triplet_kj != edge_reverse[triplet_ji]
    return triplet_kj[keep].astype(np.int32), triplet_ji[keep].astype(np.int32)
