"""Unit cells of periodic structures: checks, lattice coordinates and images.

The rows of a cell are its lattice vectors. A direction that is not periodic has no images, whatever its row holds, so
all functions look at the periodic rows alone. Their pseudoinverse gives lattice coordinates for one, two and three
periodic directions alike.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from dimenet_tf.errors import UserError

MOST_IMAGES = 1_000_000
"""Cells whose lattice has more images than this in the box around 10 Angstrom are refused: they are flat or skewed."""
MOST_POINTS = 5_000_000
"""Served models refuse requests with more atoms and images of atoms than this, which take some hundred bytes each."""
FLAT = 1e-6
"""A cell with less than this share of the volume that the lengths of its lattice vectors allow is flat."""


class Cells(NamedTuple):
    """Unit cells of a few structures."""

    cell: np.ndarray
    """(structures, 3, 3) float64, Angstrom: rows are lattice vectors, zero for molecules."""
    pbc: np.ndarray
    """(structures, 3) bool: the directions in which a structure is periodic."""

    @property
    def periodic(self) -> np.ndarray:
        """(structures,) bool: whether a structure is periodic in any direction."""
        return self.pbc.any(axis=1)

    def select(self, which: ArrayLike) -> Cells:
        """Return the cells of some structures."""
        which = np.asarray(which, np.int64)
        return Cells(self.cell[which], self.pbc[which])


def make_cells(cell: ArrayLike | None, pbc: ArrayLike | None, structures: int, source: str = "input") -> Cells | None:
    """Return the cells of structures, or None if no structure is periodic.

    Parameters
    ----------
    cell : (structures, 3, 3), or (3, 3) for all; Angstrom; None for molecules
    pbc : (structures, 3), (structures,) or (3,) bool, or one bool for all. Without it a structure with a cell is
        periodic in the directions of its lattice vectors that are not zero
    structures : number of structures
    source : named in errors

    Raises
    ------
    UserError
        For other shapes or types, and for periodic directions without a cell.

    Examples
    --------
    A crystal and a molecule:

    >>> import numpy as np
    >>> cells = make_cells([np.eye(3) * 3.6, np.zeros((3, 3))], None, 2)
    >>> cells.periodic.tolist()
    [True, False]
    >>> make_cells(None, None, 2) is None
    True
    """
    if cell is None:
        if pbc is not None and np.any(pbc):
            raise UserError(f"{source}: pbc says that a structure is periodic, but there is no cell")
        return None
    array = np.asarray(cell)
    if array.dtype.kind not in "fiu" or array.shape not in ((3, 3), (structures, 3, 3)):
        raise UserError(
            f"{source}: cell must hold numbers of shape ({structures}, 3, 3), a row for each lattice vector; got "
            f"{array.dtype} of shape {array.shape}"
        )
    vectors = np.broadcast_to(array.astype(np.float64), (structures, 3, 3))
    if pbc is None:
        directions = (vectors != 0).any(axis=2)
    else:
        flags = np.asarray(pbc)
        if flags.ndim == 1 and flags.shape == (structures,) and structures != 3:
            flags = flags[:, None]
        if flags.dtype.kind not in "biu" or flags.ndim > 2 or not set(flags.ravel().tolist()) <= {0, 1}:
            raise UserError(f"{source}: pbc must be true or false for each direction, ({structures}, 3); got {pbc!r}")
        try:
            directions = np.broadcast_to(flags.astype(bool), (structures, 3))
        except ValueError:
            raise UserError(f"{source}: pbc must have the shape ({structures}, 3), got {flags.shape}") from None
    if not directions.any():
        return None
    vectors = np.where(directions.any(axis=1)[:, None, None], vectors, 0.0)
    return Cells(vectors, directions)


def lattice_inverse(cell: np.ndarray, pbc: np.ndarray) -> np.ndarray:
    """Return the matrix that turns positions into lattice coordinates, (..., 3, 3): `R @ inverse`.

    Coordinates of directions that are not periodic are zero. The length of column k is one over the distance of two
    neighboring lattice planes.

    Examples
    --------
    >>> import numpy as np
    >>> cell, pbc = np.diag([2.0, 4.0, 9.0]), np.array([True, True, False])
    >>> (np.array([1.0, 1.0, 1.0]) @ lattice_inverse(cell, pbc)).round(6).tolist()
    [0.5, 0.25, 0.0]
    """
    return np.linalg.pinv(np.where(np.asarray(pbc)[..., None], cell, 0.0))


def why_refused(cell: np.ndarray, pbc: np.ndarray, atoms: int, reach: float, closest: float) -> str | None:
    """Return the reason why a cell cannot be used, or None.

    Parameters
    ----------
    cell, pbc : (3, 3), (3,)
    atoms : in the cell
    reach, closest : Angstrom, the distances up to which images are counted, and that two atoms keep at least

    Examples
    --------
    >>> import numpy as np
    >>> why_refused(np.diag([3.6, 3.6, 0.0]), np.array([True, True, True]), 1, 10.0, 0.3)
    'has a flat or zero cell: its lattice vectors (3.6, 3.6, 0 Ang long) span no volume'
    """
    if not pbc.any():
        return None
    if not np.isfinite(cell).all():
        return "has a cell that is not finite"
    vectors = cell[pbc]
    lengths = np.linalg.norm(vectors, axis=1)
    volume = np.sqrt(max(np.linalg.det(vectors @ vectors.T), 0.0))
    shown = ", ".join(f"{length:.3g}" for length in lengths)
    if (lengths == 0).any() or volume <= FLAT * lengths.prod():
        return f"has a flat or zero cell: its lattice vectors ({shown} Ang long) span no volume"
    if len(vectors) == 3 and volume < atoms * closest**3 / 2:
        return (
            f"has a cell of {volume:.3g} Ang^3 for {atoms} atoms, which are then closer than {closest} Ang: is the "
            "cell in Angstrom?"
        )
    if (lengths < closest).any():
        return f"has a lattice vector shorter than {closest} Ang ({shown} Ang): is the cell in Angstrom?"
    heights = 1 / np.linalg.norm(lattice_inverse(cell, pbc), axis=0)[pbc]
    if (2 * np.ceil(reach / heights) + 1).prod() > MOST_IMAGES:
        return (
            "has a cell that is too flat or too skewed for a search of its images (its lattice planes are "
            f"{heights.min():.3g} Ang apart); ase.geometry.minkowski_reduce gives a shorter cell of the same lattice"
        )
    return None


def lattice_offsets(R: np.ndarray, cell: np.ndarray, pbc: np.ndarray) -> np.ndarray:
    """Return the image of the cell in which each atom is, (atoms, 3) int; zero in directions that are not periodic.

    `R - offsets @ cell` puts the atoms into the cell.

    Examples
    --------
    >>> import numpy as np
    >>> lattice_offsets(np.array([[0.1, -0.1, 7.0]]), np.eye(3), np.array([True, True, False])).tolist()
    [[0, -1, 0]]
    """
    return np.where(pbc, np.floor(R @ lattice_inverse(cell, pbc)), 0.0).astype(np.int64)


def wrapped(N: np.ndarray, R: np.ndarray, cells: Cells | None) -> np.ndarray:
    """Return positions with the atoms of periodic structures in their cells, (sum N, 3) float64.

    Examples
    --------
    >>> import numpy as np
    >>> cells = make_cells(np.eye(3) * 2, None, 1)
    >>> wrapped(np.array([1]), np.array([[-0.5, 2.5, 1.0]]), cells).tolist()
    [[1.5, 0.5, 1.0]]
    """
    R = np.array(R, np.float64)
    if cells is None:
        return R
    ends = np.cumsum(N)
    for i in np.flatnonzero(cells.periodic):
        atoms = slice(ends[i] - N[i], ends[i])
        R[atoms] -= lattice_offsets(R[atoms], cells.cell[i], cells.pbc[i]) @ cells.cell[i]
    return R


def images(R: np.ndarray, cell: np.ndarray, pbc: np.ndarray, within: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the images of atoms that may be within a distance of an atom in the cell.

    Parameters
    ----------
    R : (atoms, 3), Angstrom, in the cell; see `wrapped`
    cell, pbc : (3, 3), (3,)
    within : Angstrom

    Returns
    -------
    owner : (images,) int, the atom of each image; the atoms themselves come first
    positions : (images, 3)
    """
    inverse = lattice_inverse(cell, pbc)
    margin = within * np.linalg.norm(inverse, axis=0)  # in lattice coordinates
    reach = np.where(pbc, np.ceil(margin), 0).astype(int)
    shifts = np.stack(np.meshgrid(*(np.arange(-n, n + 1) for n in reach), indexing="ij"), axis=-1).reshape(-1, 3)
    shifts = shifts[np.abs(shifts).any(axis=1)]
    coordinates = (R @ inverse)[None] + shifts[:, None]  # (shifts, atoms, 3)
    near = ((coordinates >= -margin - 1e-9) & (coordinates <= 1 + margin + 1e-9) | ~np.asarray(pbc)).all(axis=2)
    shift, owner = np.nonzero(near)
    return np.concatenate([np.arange(len(R)), owner]), np.concatenate([R, R[owner] + shifts[shift] @ cell])
