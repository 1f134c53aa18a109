"""Graphs from NumPy arrays: neighbor search, derived index arrays, and the function that assembles a `Graph` of them.

`dimenet_tf.graph.build_tensorflow` does the same in TensorFlow. Names of functions there end in `_tensorflow`.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from dimenet_tf.graph.graph import Graph, OptionalArray, check_needs

ALL_PAIRS_LIMIT = 256  # atoms; up to here the full distance matrix is faster than a tree


def build_graph_numpy(
    Z: np.ndarray,
    R: np.ndarray,
    num_atoms: np.ndarray,
    edges: tuple[np.ndarray, np.ndarray, np.ndarray],
    cutoff: float,
    needs: Iterable[str] = (),
    triplets: tuple[np.ndarray, np.ndarray] | None = None,
) -> Graph:
    """Build the `Graph` of flat arrays of atoms and their edges.

    Positions and edges are taken as they are: neither centered nor searched for.

    Parameters
    ----------
    Z : (atoms,) int32, atomic numbers
    R : (atoms, 3) float32 or float64, positions in Angstrom
    num_atoms : (molecules,) int32, atoms of each molecule
    edges : edge_source, edge_target, edge_reverse, (edges,) int32 each, sorted by (target, source)
    cutoff : float, Angstrom, up to which pairs are edges
    needs : the optional arrays to make, of "atom_edges" and "triplets"; a model's `needs`
    triplets : triplet_kj, triplet_ji, where they are known already; otherwise they are found if they are needed

    Raises
    ------
    UserError
        For an unknown name in `needs`.

    Examples
    --------
    >>> import numpy as np
    >>> from dimenet_tf.graph import build_graph_numpy, find_edges, find_reverse
    >>> R = np.array([[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]], "float32")
    >>> source, target = find_edges(R, 1.2)
    >>> edges = source, target, find_reverse(source, target)
    >>> build_graph_numpy(np.array([8, 1, 1], "int32"), R, np.array([3], "int32"), edges, 1.2, ["triplets"])
    Graph(positions (3, 3), ..., edge_source (4,), ..., triplet_kj (2,), triplet_ji (2,), cutoff 1.2 Ang)
    """
    needs = check_needs(needs)
    source, target, reverse = edges
    kj: OptionalArray = ()
    ji: OptionalArray = ()
    if "triplets" in needs:
        kj, ji = find_triplets(source, target, reverse, len(Z)) if triplets is None else triplets
    return Graph(
        positions=R,
        atomic_numbers=Z,
        molecule_of_atom=np.repeat(np.arange(len(num_atoms), dtype=np.int32), num_atoms),
        num_atoms=num_atoms,
        edge_source=source,
        edge_target=target,
        edge_reverse=reverse,
        edge_shift=np.zeros((len(source), 3), R.dtype),
        cutoff=np.array(cutoff, np.float64),
        atom_edges=neighbor_table(target, len(Z)) if "atom_edges" in needs else (),
        triplet_kj=kj,
        triplet_ji=ji,
    )


def find_edges(positions: np.ndarray, cutoff: float) -> tuple[np.ndarray, np.ndarray]:
    """Find all ordered pairs of different atoms at most `cutoff` apart.

    The number of neighbors of an atom is not limited.

    Parameters
    ----------
    positions : (atoms, 3) float32 or float64, Angstrom
    cutoff : float, Angstrom. A pair at exactly the cutoff is an edge; distances are compared in the positions' dtype.

    Returns
    -------
    edge_source, edge_target : (edges,) int32, sorted by (target, source)

    Examples
    --------
    Water, whose hydrogen atoms are 1.5 Angstrom apart:

    >>> import numpy as np
    >>> from dimenet_tf.graph import find_edges
    >>> R = np.array([[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]])
    >>> source, target = find_edges(R, 1.2)
    >>> list(zip(source.tolist(), target.tolist()))
    [(1, 0), (2, 0), (0, 1), (0, 2)]
    """
    cutoff = positions.dtype.type(cutoff)
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
    return source[near].astype(np.int32), target[near].astype(np.int32)


def find_reverse(edge_source: np.ndarray, edge_target: np.ndarray) -> np.ndarray:
    """Find the edge i -> j of each edge j -> i.

    Parameters
    ----------
    edge_source, edge_target : (edges,) int, sorted by (target, source), with both directions of every pair

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
    """
    # edges sorted by (source, target) are the reverse edges in order
    return np.lexsort((edge_target, edge_source)).astype(np.int32)


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
