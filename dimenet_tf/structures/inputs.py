"""Input of `predict` in any form, read into flat arrays a few molecules at a time."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from dimenet_tf.errors import UserError, unknown_name
from dimenet_tf.structures.cells import make_cells
from dimenet_tf.structures.charges import CHARGE_KEYS, SPIN_KEYS, states_of_arrays
from dimenet_tf.structures.molecules import Molecules, join_atoms
from dimenet_tf.structures.streams import open_stream

if TYPE_CHECKING:
    from ase import Atoms

KEYS = ("Z", "R", "cell", "pbc", *CHARGE_KEYS, *SPIN_KEYS)


def read_molecules(inputs: Any, size: int) -> Iterator[Molecules]:
    """Yield molecules, up to `size` at a time.

    Parameters
    ----------
    inputs : {"Z": (B, A) int, "R": (B, A, 3)}, padded with Z = 0 after each molecule's atoms, or ragged tensors or
        lists; also cell (B, 3, 3), zero for molecules, and pbc (B, 3), and charge and spin (multiplicity), each (B,),
        by the names of `charges`; a `tf.data.Dataset` of such batches; `ase.Atoms` in a list or another iterable; or
        the name of a file, see `open_stream`
    size : int

    Raises
    ------
    UserError
        For input of another type, and for arrays whose shapes do not match; names the molecule.
    """
    if isinstance(inputs, tf.data.Dataset):
        for element in inputs:
            arrays = element[0] if isinstance(element, tuple) else element  # as Keras: (inputs, targets)
            if not isinstance(arrays, Mapping):
                raise UserError("predict needs a data set of {'Z': ..., 'R': ...}")
            yield from from_padded(arrays, size)
    elif isinstance(inputs, Mapping):
        yield from from_padded(inputs, size)
    elif isinstance(inputs, (str, Path)):
        with open_stream(inputs) as stream:
            while len((some := stream.take(size)).N):
                yield some
            for note in stream.notes:
                warnings.warn(note, stacklevel=2)
    else:
        atoms, first = iter(inputs), 0
        while frames := list(itertools.islice(atoms, size)):
            yield join_atoms(frames, first)
            first += len(frames)


def is_one_molecule(inputs: Any) -> bool:
    """Return whether inputs are one molecule: an `ase.Atoms`, or {"Z": (A,), "R": (A, 3)}.

    Examples
    --------
    >>> from ase.build import molecule
    >>> is_one_molecule(molecule("H2O")), is_one_molecule([molecule("H2O")])
    (True, False)
    >>> is_one_molecule({"Z": [1, 1], "R": [[0, 0, 0], [0, 0, 0.74]]})
    True
    """
    if not isinstance(inputs, Mapping):
        return hasattr(inputs, "numbers")
    Z = inputs.get("Z", ())
    if isinstance(Z, (list, tuple)):  # may be ragged
        return len(Z) > 0 and np.ndim(Z[0]) == 0
    return not isinstance(Z, tf.RaggedTensor) and np.ndim(Z) == 1 and len(Z) > 0


def from_padded(arrays: Mapping, size: int) -> Iterator[Molecules]:
    """Yield molecules of zero-padded or ragged arrays."""
    for key in arrays:
        if key not in KEYS:
            raise unknown_name("input of predict", str(key), KEYS)
    if not {"Z", "R"} <= set(arrays):
        raise UserError(f"predict needs 'Z' and 'R', got {', '.join(map(str, arrays))}")
    Z, R = _dense(arrays["Z"], "Z"), _dense(arrays["R"], "R")
    if Z.ndim != 2 or R.shape != (*Z.shape, 3):
        raise UserError(f"Z must be (molecules, atoms) and R (molecules, atoms, 3), got {Z.shape} and {R.shape}")
    if R.dtype.kind not in "fiu":
        raise UserError(f"positions R must be numbers, got {R.dtype}")
    Z = _whole(Z)
    charge, spin = states_of_arrays(arrays, len(Z), "predict")
    cell, pbc = (None if name not in arrays else np.asarray(arrays[name]) for name in ("cell", "pbc"))
    cells = make_cells(cell, pbc, len(Z), "predict")
    real = Z != 0
    if (~real[:, :-1] & real[:, 1:]).any():
        raise UserError("Z = 0 is padding and must come after a molecule's atoms")
    for start in range(0, max(len(Z), 1), size):  # no molecules have a width too
        rows = slice(start, start + size)
        here = real[rows]
        lattice = None if cells is None else cells.select(np.arange(len(Z))[rows])
        N, numbers, positions = here.sum(axis=1), Z[rows][here], R[rows][here]
        yield Molecules(N, numbers, positions, Z.shape[1], charge[rows], spin[rows], cells=lattice)


def _dense(values: Any, name: str) -> np.ndarray:
    """Return an array; ragged tensors and ragged lists are padded with zeros."""
    if isinstance(values, tf.RaggedTensor):
        return values.to_tensor(shape=[None, None, 3] if name == "R" else None).numpy()
    if isinstance(values, (list, tuple)):
        rows = [np.asarray(row) for row in values]
        width = max((len(row) for row in rows if row.ndim), default=0)
        if any(row.ndim and len(row) < width for row in rows):
            rows = [np.pad(row, [(0, width - len(row))] + [(0, 0)] * (row.ndim - 1)) for row in rows]
        if len({row.shape for row in rows}) > 1:
            raise UserError(f"{name} must have a row for each molecule, with the same number of axes in all")
        return np.array(rows)
    return np.asarray(values)


def _whole(Z: np.ndarray) -> np.ndarray:
    """Return atomic numbers as integers; refuse fractional ones."""
    if Z.dtype.kind in "iu":
        return Z
    if Z.dtype.kind != "f":
        raise UserError(f"atomic numbers Z must be integers, got {Z.dtype}")
    bad = ~np.isfinite(Z) | (np.floor(Z) != Z)
    if bad.any():
        molecule, atom = np.argwhere(bad)[0]
        raise UserError(
            f"molecule {molecule}, atom {atom}: the atomic number {Z[molecule, atom]:g} must be a whole number"
        )
    return Z.astype(np.int64)


def read_molecule(path: str | Path) -> Atoms:
    """Return the only molecule of a file as `ase.Atoms`; formats as `open_stream`."""
    with open_stream(path) as stream:
        molecules = stream.take(2)
    if len(molecules.N) != 1:
        raise UserError(f"{path} must hold one molecule, it holds {'several' if len(molecules.N) else 'none'}")
    if molecules.faults:
        raise UserError(f"the molecule of {path} {molecules.faults[0]}")
    if molecules.cells is not None:
        raise UserError(f"the structure of {path} is periodic; expected a molecule: remove its cell if it is one")
    return molecules.to_atoms()[0]
