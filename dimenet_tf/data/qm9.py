"""QM9: 133 885 small organic molecules, B3LYP/6-31G(2df,p) (Ramakrishnan et al., Sci. Data 1, 140022, 2014).

The raw archive is downloaded once, parsed once, and kept in a cache folder. Nothing of it is ever extracted to disk.

Not tried yet for want of a network where this was written: the addresses. The parser was tried on archives of the same
format made in the tests.
"""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from dimenet_tf.data import download
from dimenet_tf.errors import UserError, check_choice
from dimenet_tf.structures.checks import STRICT, Checks
from dimenet_tf.structures.container import DataContainer
from dimenet_tf.structures.qm9_raw import PROPERTIES, parse_xyz
from dimenet_tf.structures.readers import read_file

ARCHIVE, UNCHARACTERIZED = "dsgdb9nsd.xyz.tar.bz2", "uncharacterized.txt"
MIRRORS = ("https://ndownloader.figshare.com/files/{}", "https://figshare.com/ndownloader/files/{}")
FIGSHARE_FILES = {ARCHIVE: 3195389, UNCHARACTERIZED: 3195404}
MOLECULES, NUM_UNCHARACTERIZED = 133_885, 3054
MEMBER = re.compile(r"dsgdb9nsd_(\d{6})\.xyz")

FILTERS = ("correct", "release")


def qm9(filter: str = "correct", cache: str | Path | None = None, checks: Checks = STRICT) -> DataContainer:
    """Return QM9 in the papers' units: energies in eV, U0, U, H, G as atomization energies.

    Parameters
    ----------
    filter : which of the 3054 molecules that failed QM9's consistency check are left out
        "correct": those that `uncharacterized.txt` names.
        "release": those that the DimeNet release left out. It took the one-based numbers of that file for zero-based
        row indices and so dropped the molecule after each of them.
        Both leave 130 831 molecules.
    cache : folder of the downloads; by default the user's cache folder
    checks : validation options, applied after the filter

    Raises
    ------
    UserError
        Without a network, with the file's name and place; for a damaged archive or another checksum than before.
    """
    check_choice("data.filter", filter, FILTERS)
    cache = download.cache_folder(cache)
    parsed = cache / f"qm9_{filter}.npz"
    if not parsed.exists():
        dropped = read_uncharacterized(fetch(UNCHARACTERIZED, cache), NUM_UNCHARACTERIZED)
        data = parse_archive(fetch(ARCHIVE, cache), MOLECULES)
        data = data.select(np.flatnonzero(~dropped_rows(data.id, dropped, filter)))
        download.pin(cache, [ARCHIVE, UNCHARACTERIZED])  # now that they have been read
        download.keep(data, parsed)
    container = read_file(parsed, units={"R": "Ang"}, checks=checks)
    container.source = f"QM9, filter: {filter}"
    return container


def fetch(name: str, cache: Path) -> Path:
    """Return the path of a raw file, downloaded if it is not there."""
    return download.fetch(name, [mirror.format(FIGSHARE_FILES[name]) for mirror in MIRRORS], cache)


def parse_archive(path: str | Path, expected: int | None = None) -> DataContainer:
    """Read the raw archive: one xyz file for each molecule. `expected`: how many there must be."""
    molecules = []
    for name, text in _members(Path(path)):
        molecules.append(parse_xyz(text, f"{path}: {name}"))
    if expected is not None and len(molecules) != expected:
        raise UserError(f"{path} holds {len(molecules)} molecules, expected {expected}: remove it to download it again")
    molecules.sort(key=lambda molecule: molecule["id"])
    return DataContainer(
        [len(m["Z"]) for m in molecules],
        np.concatenate([m["Z"] for m in molecules]),
        np.concatenate([m["R"] for m in molecules]),
        {key: np.array([m[key] for m in molecules]) for key in PROPERTIES},
        np.array([m["id"] for m in molecules]),
        str(path),
        check=False,  # what is kept is checked whenever it is read
    )


def _members(path: Path) -> Iterator[tuple[str, str]]:
    try:
        with tarfile.open(path, "r:*") as archive:
            for member in archive:
                if not member.isfile() or not MEMBER.fullmatch(Path(member.name).name) or ".." in member.name:
                    raise UserError(f"{path}: unexpected member '{member.name}'; this is not QM9's raw archive")
                file = archive.extractfile(member)
                assert file is not None  # of a member that is a file
                yield member.name, file.read().decode()
    except (tarfile.TarError, EOFError, OSError) as error:
        raise UserError(f"{path} is damaged or truncated ({error}): remove it to download it again") from None


def read_uncharacterized(path: str | Path, expected: int | None = None) -> np.ndarray:
    """Return the numbers of the molecules that failed the consistency check.

    The file has nine header lines, then the list, then one more line. Each line of the list begins with a number.
    """
    lines = Path(path).read_text().split("\n")[9:-2]
    try:
        numbers = np.array([int(line.split()[0]) for line in lines], np.int64)
    except (ValueError, IndexError):
        raise UserError(f"{path} is not QM9's list of uncharacterized molecules: remove it") from None
    if expected is not None and len(numbers) != expected:
        raise UserError(f"{path} names {len(numbers)} molecules, expected {expected}: remove it to download it again")
    return numbers


def dropped_rows(ids: np.ndarray, uncharacterized: np.ndarray, filter: str) -> np.ndarray:
    """Return which rows are left out, (molecules,) bool; `ids` are the one-based numbers in ascending order."""
    if filter == "correct":
        return np.isin(ids, uncharacterized)
    dropped = np.zeros(len(ids), bool)
    dropped[uncharacterized] = True  # the release's error: a one-based number as a zero-based row
    return dropped
