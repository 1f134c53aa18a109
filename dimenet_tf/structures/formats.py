"""Layouts of npz files, and the errors of reading files as one line."""

from __future__ import annotations

import contextlib
from collections.abc import Container, Iterator, Mapping
from pathlib import Path
from zipfile import BadZipFile
from zlib import error as ZlibError

from dimenet_tf.errors import UserError

# names of our arrays in the npz files of others; the first two hold many geometries of one molecule
MD17 = {"z": "Z", "R": "R", "E": "energy", "F": "forces"}
RMD17 = {"nuclear_charges": "Z", "coords": "R", "energies": "energy", "forces": "forces"}
COLL = {"E": "energy", "F": "forces"}  # flat arrays under GemNet's names


def find_layout(arrays: Container[str]) -> Mapping[str, str]:
    """Return the names of our arrays in an npz file with the given ones; none where it is no known layout."""
    if "N" in arrays:
        return COLL
    return next((names for names in (MD17, RMD17) if _is_layout(names, arrays)), {})


def _is_layout(names: Mapping[str, str], arrays: Container[str]) -> bool:
    return all(theirs in arrays for theirs, ours in names.items() if ours in ("Z", "R"))


@contextlib.contextmanager
def reading_npz(source: str) -> Iterator[None]:
    """Turn the errors of reading an npz file into one line that names it."""
    try:
        yield
    except (ValueError, OSError, EOFError, LookupError, TypeError, AttributeError, BadZipFile, ZlibError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{source} is not a readable npz file without pickled objects ({error})") from None


@contextlib.contextmanager
def reading_with_ase(what: str | Path) -> Iterator[None]:
    """Turn the errors of ASE's readers, which are of any kind, into one line that names the file."""
    try:
        yield
    except (UserError, MemoryError):
        raise
    except Exception as error:
        said = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{what} could not be read by ASE: {said}") from error
