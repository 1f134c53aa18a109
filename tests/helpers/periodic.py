"""Numbers of published implementations for periodic systems (tests/files/README.md)."""

import itertools

import numpy as np

from helpers.paths import FILES


def periodic_reference(name: str) -> dict[str, np.ndarray]:
    """Arrays of a reference file: inputs `in/`, weights `w/`, outputs `out32/` and `out64/`."""
    with np.load(FILES / f"periodic_{name}.npz") as file:
        return dict(file)


SPANS_NO_LATTICE = (
    # cell, reason on the host, in the graph
    (np.diag([3.0, 3.0, 0.0]), "flat or zero cell", "flat or zero cell"),
    ([[3, 0, 0], [0, 3, 0], [3, 3, 0]], "flat or zero cell", "flat or zero cell"),
    (np.diag([3.0, 3.0, np.nan]), "not finite", "not finite"),
    (np.diag([0.2, 3.0, 3.0]), "shorter than 0.3 Ang", "too small for its atoms"),
    (np.diag([0.31, 0.2, 0.1]), "closer than 0.3 Ang", "too small for its atoms"),
    ([[3, 0, 0], [300, 3, 0], [0, 300, 3]], "too skewed", "too skewed"),
)
SPANS_A_LATTICE = (
    np.diag([0.5, 0.5, 0.5]),
    np.diag([3.0, 3.0, -3.0]),
    [[3.0, 0, 0], [2.9, 0.9, 0], [-1.4, 0.7, 3.1]],
)


def images(Z, R, N, cells, cutoff) -> tuple[np.ndarray, np.ndarray]:
    """Edges (target, source) and images of crystals, found by brute force: (edges, 2), (edges, 3) int."""
    ends = np.cumsum(N)
    edges = []
    for end, n, cell in zip(ends, N, np.asarray(cells, float)):
        heights = np.abs(np.linalg.det(cell)) / np.linalg.norm(
            np.cross(np.roll(cell, 2, axis=0), np.roll(cell, 1, axis=0)), axis=1
        )
        atoms = np.asarray(R[end - n : end], float)
        spread = np.ceil(np.ptp(atoms @ np.linalg.inv(cell), axis=0))
        reach = (np.ceil(cutoff / heights) + spread + 1).astype(int)
        for S in itertools.product(*(range(-r, r + 1) for r in reach)):
            d = np.linalg.norm(atoms[None] + S @ cell - atoms[:, None], axis=-1)  # (target, source)
            near = (d <= cutoff) & ~(np.eye(n, dtype=bool) & (not any(S)))
            edges += [(i + end - n, j + end - n, *S) for i, j in np.argwhere(near)]
    edges = np.array(sorted(edges))
    return edges[:, :2], edges[:, 2:]
