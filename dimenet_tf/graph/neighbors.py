"""Neighbor search and derived index arrays on the host. Nothing here has a limit on the number of neighbors."""

from __future__ import annotations

import numpy as np

ALL_PAIRS_LIMIT = 256  # atoms; up to here the full distance matrix is faster than a tree


def find_edges(positions: np.ndarray, cutoff: float) -> tuple[np.ndarray, np.ndarray]:
    """Find all ordered pairs of different atoms at most `cutoff` apart.

    Parameters
    ----------
    positions : (atoms, 3) float32 or float64, Angstrom
    cutoff : float, Angstrom. A pair at exactly the cutoff is an edge; distances are compared in the positions' dtype.

    Returns
    -------
    edge_source, edge_target : (edges,) int32, sorted by (target, source)
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
    """Return for every edge j -> i the number of the edge i -> j, (edges,) int32.

    Edges sorted by (target, source) and holding both directions: sorting them by (source, target) instead lists the
    reverse edges in order.
    """
    return np.lexsort((edge_target, edge_source)).astype(np.int32)


def neighbor_table(edge_target: np.ndarray, num_atoms: int) -> np.ndarray:
    """Return the edges that go to each atom, (atoms, max_neighbors) int32, filled up with -1."""
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

    Returns
    -------
    triplet_kj, triplet_ji : (triplets,) int32, sorted by (ji, k)
    """
    degree = np.bincount(edge_target, minlength=num_atoms)
    first = np.concatenate([[0], np.cumsum(degree)])
    count = degree[edge_source]  # edges that come into j, one of them from i
    triplet_ji = np.repeat(np.arange(len(edge_source)), count)
    within = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
    triplet_kj = first[edge_source[triplet_ji]] + within
    keep = triplet_kj != edge_reverse[triplet_ji]
    return triplet_kj[keep].astype(np.int32), triplet_ji[keep].astype(np.int32)
