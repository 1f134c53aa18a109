"""Limits that every structure must keep, in training and in prediction, and the unit that its bonds suggest.

`dimenet_tf.graph.ingraph` applies the same limits with TensorFlow operations.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from dimenet_tf.errors import UserError
from dimenet_tf.structures.cells import Cells, images, wrapped
from dimenet_tf.structures.elements import MAX_Z
from dimenet_tf.structures.units import LENGTH

CLOSEST = 0.3
"""Angstrom. Atoms that are closer are refused; the shortest bond, that of H2, is 0.74 long."""
REACH = 10.0
"""Angstrom. Within this distance the nearest neighbor of an atom is searched."""
SCATTERED = 4
"""A structure of at least this many atoms, of which no two are neighbors, is refused."""
FARTHEST = {"float32": 2.0**5, "float64": 2.0**33}
"""Angstrom from the origin, up to which a dtype resolves positions to 2e-6 Angstrom: 1e-4 eV/Ang in a stiff bond."""
ALL_PAIRS = 64  # atoms; up to here the full distance matrix is faster than a tree
AT_ONCE = 100_000  # atoms in a tree: small trees are built faster, and take little memory

# covalent radii in Angstrom (Cordero et al., Dalton Trans. 2832, 2008) of elements whose bonds are about as long as
# their radii everywhere; the distances of others, as in metals, salts and noble gases, suggest no unit
RADII = {1: 0.31, 6: 0.76, 7: 0.71, 8: 0.66, 9: 0.57}
WINDOW = (0.9, 1.15)  # bond lengths in units of the summed radii: H2 1.19, CH and CC 1.0, N2 0.77
MOST = 0.75  # of the atoms that have a neighbor of these elements
FEWEST = 5  # such atoms; in a smaller sample a stretched bond would be taken for a unit
UNITS = ("a0", "nm", "pm")

RADIUS = np.full(MAX_Z + 1, np.nan)
"""(95,) Angstrom, by atomic number; NaN for the others."""
RADIUS[list(RADII)] = list(RADII.values())


def window(unit: str) -> tuple[float, float]:
    """Return the smallest and the largest ratio of distance to summed radii of a bond whose length is in a unit."""
    low, high = (bound / LENGTH[unit] for bound in WINDOW)
    return low, high


class Neighborhood(NamedTuple):
    """Nearest other atom of the same molecule, for every atom."""

    distance: np.ndarray
    """(atoms,) float64, Angstrom; infinite where there is no other atom within `REACH`."""
    neighbor: np.ndarray
    """(atoms,) int; the atom itself where there is none."""


def nearest(molecule: np.ndarray, R: np.ndarray, within: float, cells: Cells | None = None) -> Neighborhood:
    """Find the nearest other atom of the same molecule, or image of an atom, for every atom.

    Parameters
    ----------
    molecule : (atoms,) int, ascending
    R : (atoms, 3) finite, Angstrom
    within : Angstrom
    cells : of all molecules, which `molecule` numbers; None if nothing is periodic
    """
    if cells is not None and (periodic := cells.periodic).any():
        inside = periodic[molecule]
        found = nearest(molecule[~inside], R[~inside], within)
        distance, neighbor = np.full(len(R), np.inf), np.arange(len(R))
        distance[~inside], neighbor[~inside] = found.distance, np.flatnonzero(~inside)[found.neighbor]
        first = np.searchsorted(molecule, np.arange(len(periodic) + 1))
        for i in np.flatnonzero(periodic):
            atoms = slice(first[i], first[i + 1])
            distance[atoms], owner = _nearest_image(R[atoms], cells.cell[i], cells.pbc[i], within)
            neighbor[atoms] = first[i] + owner
        return Neighborhood(distance, neighbor)
    if len(R) <= ALL_PAIRS:
        return _nearest_of_all_pairs(molecule, R, within)
    from scipy.spatial import cKDTree  # slow to import

    distance, neighbor = np.full(len(R), np.inf), np.arange(len(R))
    starts = np.unique(np.searchsorted(molecule, molecule[::AT_ONCE]))  # no molecule is cut
    for start, end in zip(starts, [*starts[1:], len(R)]):
        # a fourth coordinate keeps the molecules of a tree apart, wherever they are
        points = np.column_stack([np.asarray(R[start:end], np.float64), 2 * within * molecule[start:end]])
        tree = cKDTree(points, balanced_tree=False, compact_nodes=False)
        lengths, others = tree.query(points, k=2, distance_upper_bound=within)
        own = np.arange(end - start)
        second = others[:, 0] == own  # of atoms at the same place any may come first
        length = np.where(second, lengths[:, 1], lengths[:, 0])
        distance[start:end] = length
        neighbor[start:end] = start + np.where(np.isfinite(length), np.where(second, others[:, 1], others[:, 0]), own)
    return Neighborhood(distance, neighbor)


def _nearest_image(R: np.ndarray, cell: np.ndarray, pbc: np.ndarray, within: float) -> tuple[np.ndarray, np.ndarray]:
    """Return distance and atom of the nearest image of an atom for every atom of one periodic structure."""
    from scipy.spatial import cKDTree  # slow to import

    own = np.arange(len(R))
    if len(R) == 0:
        return np.empty(0), own
    R = wrapped(np.array([len(R)]), R, Cells(cell[None], pbc[None]))
    shortest = np.linalg.norm(cell[pbc], axis=1).min()  # an atom's own image is at most this far away
    reach = min(within, 1.001 * shortest)
    owner, points = images(R, cell, pbc, reach)
    lengths, found = cKDTree(points).query(R, k=2, distance_upper_bound=within)
    second = found[:, 0] == own  # of atoms at the same place any may come first
    length = np.where(second, lengths[:, 1], lengths[:, 0])
    other = np.where(second, found[:, 1], found[:, 0])
    return length, np.where(np.isfinite(length), owner[np.minimum(other, len(owner) - 1)], own)


def _nearest_of_all_pairs(molecule: np.ndarray, R: np.ndarray, within: float) -> Neighborhood:
    if len(R) == 0:
        return Neighborhood(np.empty(0), np.empty(0, int))
    R = np.asarray(R, np.float64)
    vectors = R[:, None] - R
    square = (vectors * vectors).sum(axis=2)
    square[molecule[:, None] != molecule] = np.inf
    own = np.arange(len(R))
    square[own, own] = np.inf
    neighbor = square.argmin(axis=1)
    distance = np.sqrt(square[own, neighbor])
    far = distance > within
    return Neighborhood(np.where(far, np.inf, distance), np.where(far, own, neighbor))


def unit_of_bonds(Z: np.ndarray, near: Neighborhood) -> str | None:
    """Return the unit other than Angstrom in which the distances to nearest neighbors have the length of bonds.

    Only pairs of H, C, N, O and F are compared. Samples of fewer than `FEWEST` such atoms suggest no unit.

    Returns
    -------
    "a0", "nm", "pm" or None
    """
    radius = RADIUS[np.where((Z > 0) & (Z <= MAX_Z), Z, 0)]
    ratio = near.distance / (radius + radius[near.neighbor])
    ratio = ratio[np.isfinite(ratio) & (near.neighbor != np.arange(len(Z)))]
    if len(ratio) < FEWEST:
        return None
    for unit in UNITS:
        low, high = window(unit)
        if np.mean((low < ratio) & (ratio < high)) > MOST:
            return unit
    return None


def describe_unit(unit: str, near: Neighborhood) -> str:
    """Describe positions whose bonds suggest another unit than Angstrom."""
    typical = np.median(near.distance[np.isfinite(near.distance)])
    return f"bonds are typically {typical:.3g} long, as if the positions were in {unit}, not in Angstrom"


def molecules_of(N: np.ndarray) -> Iterator[slice]:
    """Yield the slice of each molecule's atoms in flat arrays."""
    ends = np.cumsum(N)
    return (slice(end - n, end) for n, end in zip(N.tolist(), ends.tolist()))


def centered(N: np.ndarray, R: np.ndarray) -> np.ndarray:
    """Return positions relative to the centroid of their molecule, computed in float64.

    Far from the origin a cast to float32 would take digits of the distances. Energies and forces do not depend on the
    origin, and dipole moments of neutral molecules neither.

    Parameters
    ----------
    N : (molecules,) int, atoms of each molecule
    R : (sum N, 3)

    Returns
    -------
    (sum N, 3) float64

    Examples
    --------
    >>> centered(np.array([2]), np.array([[1e9, 0, 0], [1e9 + 1, 0, 0]]))
    array([[-0.5,  0. ,  0. ],
           [ 0.5,  0. ,  0. ]])
    """
    R, N = np.asarray(R, np.float64), np.asarray(N)
    if len(R) == 0:
        return R
    some = N[N > 0]
    center = np.add.reduceat(R, np.cumsum(some) - some) / some[:, None]
    return R - np.repeat(center, some, axis=0)


def too_far(N: np.ndarray, R: np.ndarray) -> np.ndarray:
    """Return which molecules are so far from the origin that the dtype of R has cut their positions; (molecules,) bool.

    The limit is `FARTHEST`, or twice the extent of a molecule that is larger.

    Raises
    ------
    UserError
        For dtypes of less precision than float32.
    """
    bad = np.zeros(len(N), bool)
    if len(R) == 0 or R.dtype.kind in "iu":  # whole numbers are exact
        return bad
    if R.dtype.kind != "f" or R.dtype.itemsize < 4:
        raise UserError(f"positions must be float32 or float64 numbers, got {R.dtype}")
    limit = FARTHEST["float32" if R.dtype.itemsize == 4 else "float64"]
    outermost = np.abs(R).max(axis=1)
    if outermost.max() <= limit:
        return bad
    some, starts = N > 0, np.cumsum(N)[N > 0] - N[N > 0]
    extent = np.maximum.reduceat(np.abs(centered(N, R)).max(axis=1), starts)
    farthest = np.maximum.reduceat(outermost, starts)
    bad[some] = farthest > np.maximum(limit, 2 * extent)
    return bad
