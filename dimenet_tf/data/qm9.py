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
from dimenet_tf.data.checks import STRICT, Checks
from dimenet_tf.data.container import DataContainer
from dimenet_tf.data.readers import read_file
from dimenet_tf.elements import atomic_number
from dimenet_tf.errors import UserError

HARTREE = 27.211386246  # eV
ARCHIVE, UNCHARACTERIZED = "dsgdb9nsd.xyz.tar.bz2", "uncharacterized.txt"
MIRRORS = ("https://ndownloader.figshare.com/files/{}", "https://figshare.com/ndownloader/files/{}")
FIGSHARE_FILES = {ARCHIVE: 3195389, UNCHARACTERIZED: 3195404}
MOLECULES, NUM_UNCHARACTERIZED = 133_885, 3054
MEMBER = re.compile(r"dsgdb9nsd_(\d{6})\.xyz")

# columns of the second line behind "gdb N": A, B, C in GHz, then
PROPERTIES = ("mu", "alpha", "homo", "lumo", "gap", "r2", "zpve", "U0", "U", "H", "G", "Cv")
IN_HARTREE = ("homo", "lumo", "gap", "zpve", "U0", "U", "H", "G")

# energies of the free atoms in Hartree, from QM9's atomref.txt
ATOM_ENERGIES = {
    "U0": {1: -0.500273, 6: -37.846772, 7: -54.583861, 8: -75.064579, 9: -99.718730},
    "U": {1: -0.498857, 6: -37.845355, 7: -54.582445, 8: -75.063163, 9: -99.717314},
    "H": {1: -0.497912, 6: -37.844411, 7: -54.581501, 8: -75.062219, 9: -99.716370},
    "G": {1: -0.510927, 6: -37.861317, 7: -54.598897, 8: -75.079532, 9: -99.733544},
}
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
    checks : what the molecules are held to, after the filter

    Raises
    ------
    UserError
        Without a network, with the file's name and place; for a damaged archive or another checksum than before.
    """
    if filter not in FILTERS:
        raise UserError(f"data.filter: '{filter}' is none of {', '.join(FILTERS)}")
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
        raise UserError(f"{path} holds {len(molecules)} molecules, expected {expected}: remove it to download it anew")
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
                yield member.name, archive.extractfile(member).read().decode()
    except (tarfile.TarError, EOFError, OSError) as error:
        raise UserError(f"{path} is damaged or truncated ({error}): remove it to download it anew") from None


def parse_xyz(text: str, source: str) -> dict:
    """Read a raw xyz file of QM9; see the columns at the top of this module."""
    try:
        lines = text.replace("*^", "e").splitlines()
        count = int(lines[0])
        tag, number, _, _, _, *values = lines[1].split()
        molecule = {"id": int(number), **dict(zip(PROPERTIES, map(float, values)))}
        atoms = [line.split() for line in lines[2 : 2 + count]]
        if tag != "gdb" or len(values) != len(PROPERTIES) or len(atoms) != count:
            raise ValueError("not the raw format of QM9")
        molecule["Z"] = np.array([atomic_number(atom[0], source) for atom in atoms])
        molecule["R"] = np.array([[float(x) for x in atom[1:4]] for atom in atoms])
    except (ValueError, IndexError) as error:
        raise UserError(f"{source}: {error}") from None
    for key, references in ATOM_ENERGIES.items():
        molecule[key] -= sum(references[z] for z in molecule["Z"])
    return {key: value * HARTREE if key in IN_HARTREE else value for key, value in molecule.items()}


def read_uncharacterized(path: str | Path, expected: int | None = None) -> np.ndarray:
    """Return the numbers of the molecules that failed the consistency check.

    The file has nine lines of heading and one line behind the list; each line of the list begins with a number.
    """
    lines = Path(path).read_text().split("\n")[9:-2]
    try:
        numbers = np.array([int(line.split()[0]) for line in lines], np.int64)
    except (ValueError, IndexError):
        raise UserError(f"{path} is not QM9's list of uncharacterized molecules: remove it") from None
    if expected is not None and len(numbers) != expected:
        raise UserError(f"{path} names {len(numbers)} molecules, expected {expected}: remove it to download it anew")
    return numbers


def dropped_rows(ids: np.ndarray, uncharacterized: np.ndarray, filter: str) -> np.ndarray:
    """Return which rows are left out, (molecules,) bool; `ids` are the one-based numbers in ascending order."""
    if filter == "correct":
        return np.isin(ids, uncharacterized)
    dropped = np.zeros(len(ids), bool)
    dropped[uncharacterized] = True  # the release's error: a one-based number as a zero-based row
    return dropped
