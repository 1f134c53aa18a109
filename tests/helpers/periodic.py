"""Numbers of published implementations for periodic systems (tests/files/README.md)."""

import itertools

import numpy as np

from helpers.paths import FILES


def periodic_reference(name: str) -> dict[str, np.ndarray]:
    """Arrays of a reference file: inputs `in/`, weights `w/`, outputs `out32/` and `out64/`."""
    with np.load(FILES / f"periodic_{name}.npz") as file:
        return dict(file)


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
