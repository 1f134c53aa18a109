"""Molecules in any form that users have them -> flat arrays, a few at a time: a file may be larger than memory."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from dimenet_tf.data.readers import PERIODIC
from dimenet_tf.data.streams import open_stream
from dimenet_tf.errors import UserError


class Molecules(NamedTuple):
    """Some molecules behind each other."""

    N: np.ndarray
    """(molecules,) int: atoms of each."""
    Z: np.ndarray
    """(sum N,) int: atomic numbers."""
    R: np.ndarray
    """(sum N, 3) float, Angstrom."""
    width: int
    """Atoms to which the arrays that they came from were padded."""


def read_molecules(inputs, size: int) -> Iterator[Molecules]:
    """Yield molecules, up to `size` at a time.

    Parameters
    ----------
    inputs : {"Z": (B, A) int, "R": (B, A, 3)}, padded with Z = 0 behind each molecule's atoms; a `tf.data.Dataset` of
        such batches; `ase.Atoms` in a list or another iterable; or the name of a file, see `open_stream`
    size : int

    Raises
    ------
    UserError
        For what is none of these, and for arrays that do not fit each other; names the molecule.
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
        yield from from_atoms(read_frames(inputs), size)
    elif hasattr(inputs, "numbers"):
        raise UserError("predict takes a list of molecules: predict([atoms])")
    else:
        yield from from_atoms(inputs, size)


def from_padded(arrays: Mapping, size: int) -> Iterator[Molecules]:
    """Yield molecules of zero-padded arrays."""
    if not {"Z", "R"} <= set(arrays):
        raise UserError(f"predict needs 'Z' and 'R', got {', '.join(map(str, arrays))}")
    Z, R = np.asarray(arrays["Z"]), np.asarray(arrays["R"])
    if Z.ndim != 2 or R.shape != (*Z.shape, 3):
        raise UserError(f"Z must be (molecules, atoms) and R (molecules, atoms, 3), got {Z.shape} and {R.shape}")
    real = Z != 0
    if (~real[:, :-1] & real[:, 1:]).any():
        raise UserError("Z = 0 is padding and may only stand behind a molecule's atoms")
    for start in range(0, max(len(Z), 1), size):  # no molecules have a width too
        rows = slice(start, start + size)
        yield Molecules(real[rows].sum(axis=1), Z[rows][real[rows]], R[rows][real[rows]], Z.shape[1])


def from_atoms(atoms: Iterable, size: int) -> Iterator[Molecules]:
    """Yield molecules given as `ase.Atoms`."""
    numbered = enumerate(atoms)
    while chunk := list(itertools.islice(numbered, size)):
        for i, molecule in chunk:
            if not hasattr(molecule, "numbers"):
                raise UserError(f"molecule {i} is no ase.Atoms but {type(molecule).__name__}")
            if molecule.pbc.any():
                raise UserError(f"molecule {i} {PERIODIC}")
        molecules = [molecule for _, molecule in chunk]
        N = np.array([len(molecule) for molecule in molecules])
        numbers = np.concatenate([molecule.numbers for molecule in molecules])
        yield Molecules(N, numbers, np.concatenate([molecule.positions for molecule in molecules]), N.max())


def read_frames(path: str | Path) -> Iterator:
    """Yield the molecules of a file as `ase.Atoms`, one by one; formats as `open_stream`."""
    with open_stream(path) as stream:
        while some := stream.take(100):
            yield from some


def read_molecule(path: str | Path):
    """Return the only molecule of a file as `ase.Atoms`; formats as `open_stream`."""
    with open_stream(path) as stream:
        molecules = stream.take(2)
    if len(molecules) != 1:
        raise UserError(f"{path} must hold one molecule, it holds {'several' if molecules else 'none'}")
    if molecules[0].pbc.any():
        raise UserError(f"the molecule of {path} {PERIODIC}")
    return molecules[0]
