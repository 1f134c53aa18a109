"""Public data sets of molecules in motion: MD17, rMD17, MD17@CCSD(T), COLL.

MD17 and MD17@CCSD(T): Chmiela et al., Sci. Adv. 3, e1603015 (2017); Nat. Commun. 9, 3887 (2018). rMD17: Christensen,
von Lilienfeld, Mach. Learn.: Sci. Technol. 1, 045018 (2020). COLL: Klicpera et al., NeurIPS-W 2020 (DimeNet++).

Not tried yet for want of a network where this was written: the addresses. The readers were tried on files of the same
layouts made in the tests.
"""

from __future__ import annotations

import io
import os
import tarfile
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from dimenet_tf.data.download import cache_folder, fetch, keep, pin, reading
from dimenet_tf.errors import UserError, unknown_name
from dimenet_tf.structures.checks import STRICT, Checks
from dimenet_tf.structures.container import DataContainer
from dimenet_tf.structures.readers import SPLIT, from_arrays, load_npz, read_file
from dimenet_tf.structures.splits import Split

KCAL = {"energy": "kcal/mol", "forces": "kcal/mol/Ang", "R": "Ang"}
SGDML = ("http://www.quantum-machine.org/gdml/data/npz/{}", "http://sgdml.org/secure_proxy.php?file=data/npz/{}")
FIGSHARE = ("https://ndownloader.figshare.com/files/{}", "https://figshare.com/ndownloader/files/{}")
RMD17_ARCHIVE, RMD17_FILE = "rmd17.tar.bz2", 23950376
COLL_FILES = {"train": 25605734, "valid": 25605740, "test": 25605737}
COLL_FRAMES = {"train": 120_000, "valid": 10_000, "test": 9_480}

MD17_MOLECULES = "aspirin benzene ethanol malonaldehyde naphthalene salicylic_acid toluene uracil".split()
RMD17_MOLECULES = [*MD17_MOLECULES, "azobenzene", "paracetamol"]
CCSD_MOLECULES = "aspirin benzene ethanol malonaldehyde toluene".split()
SHORT = {"salicylic_acid": "salicylic"}


def _check(molecule: str | None, known: list[str]) -> str:
    if molecule not in known:
        raise unknown_name("data.molecule", str(molecule), known)
    return molecule


def md17(molecule: str | None, cache: str | Path | None = None, checks: Checks = STRICT) -> DataContainer:
    """Return one molecule of MD17 (PBE+vdW-TS; the papers train on 1000 random frames and validate on 1000)."""
    molecule = _check(molecule, MD17_MOLECULES)
    stem = "benzene2017" if molecule == "benzene" else SHORT.get(molecule, molecule)
    cache, name = cache_folder(cache), f"md17_{stem}.npz"
    path = fetch(name, [mirror.format(name) for mirror in SGDML], cache)
    with reading(path):
        data = read_file(path, units=KCAL, checks=checks)
    pin(cache, [name])
    data.source = f"MD17, {molecule}"
    return data


def rmd17(
    molecule: str | None, fold: int = 1, cache: str | Path | None = None, checks: Checks = STRICT
) -> DataContainer:
    """Return one molecule of revised MD17 (PBE/def2-SVP) with one of its five splits of 1000 and 1000 frames."""
    molecule = _check(molecule, RMD17_MOLECULES)
    if fold not in range(1, 6):
        raise UserError(f"data.fold = {fold} must be 1 ... 5")
    cache = cache_folder(cache)
    parsed = cache / f"rmd17_{molecule}.npz"
    if not parsed.exists():
        path = fetch(RMD17_ARCHIVE, [mirror.format(RMD17_FILE) for mirror in FIGSHARE], cache)
        member = f"npz_data/rmd17_{SHORT.get(molecule, molecule)}.npz"
        splits = [f"splits/index_{part}_0{k}.csv" for part in ("train", "test") for k in range(1, 6)]
        found = _tar_members(path, [member, *splits])
        arrays = load_npz(io.BytesIO(found[member]), f"{path}: {member}")
        indices = {Path(name).stem: np.array(found[name].decode().split(), np.int64) for name in splits}
        pin(cache, [RMD17_ARCHIVE])
        unfinished = parsed.with_suffix(f".{os.getpid()}.npz")
        kept: dict[str, Any] = {k: v for k, v in arrays.items() if not k.startswith("old_")} | indices
        np.savez(unfinished, **kept)
        unfinished.replace(parsed)
    arrays = load_npz(parsed, str(parsed))
    train, test = (arrays[f"index_{part}_0{fold}"] for part in ("train", "test"))
    arrays = {k: v for k, v in arrays.items() if not k.startswith("index_")}
    arrays |= zip(SPLIT, (train, np.empty(0, np.int64), test))
    data = from_arrays(arrays, str(parsed), units=KCAL, checks=checks)
    data.source = f"rMD17, {molecule}"
    return data


def md17_ccsd(molecule: str | None, cache: str | Path | None = None, checks: Checks = STRICT) -> DataContainer:
    """Return one molecule of MD17@CCSD(T) (aspirin: CCSD): 1000 frames to train on and those to test on."""
    molecule = _check(molecule, CCSD_MOLECULES)
    stem = "aspirin_ccsd" if molecule == "aspirin" else f"{molecule}_ccsd_t"
    cache, name = cache_folder(cache), f"{stem}.zip"
    path = fetch(name, [mirror.format(name) for mirror in SGDML], cache)
    parts = []
    try:
        with zipfile.ZipFile(path) as archive:
            for part in ("train", "test"):
                member = f"{stem}-{part}.npz"
                parts.append(load_npz(io.BytesIO(archive.read(member)), f"{path}: {member}"))
    except (zipfile.BadZipFile, zlib.error, KeyError, OSError) as error:
        raise UserError(f"{path} is damaged or not that archive ({error}): remove it to download it again") from None
    train, test = (from_arrays(arrays, str(path), units=KCAL, checks=None) for arrays in parts)
    pin(cache, [name])
    data = _joined([train, test], f"MD17@CCSD(T), {molecule}")
    data.split = Split(np.arange(len(train)), np.empty(0, np.int64), np.arange(len(train), len(data)))
    return data.checked(checks)


def coll(cache: str | Path | None = None, checks: Checks = STRICT) -> DataContainer:
    """Return COLL (collisions of small organic molecules, revPBE-D3): eV, atomization energies, its own split."""
    cache = cache_folder(cache)
    parsed = cache / "coll.npz"
    if not parsed.exists():
        parts = {}
        names = {part: f"coll_v1.2_AE_{part}.xyz" for part in COLL_FILES}
        for part, name in names.items():
            path = fetch(name, [mirror.format(COLL_FILES[part]) for mirror in FIGSHARE], cache)
            with reading(path):
                parts[part] = read_file(path, units={"energy": "eV", "forces": "eV/Ang"}, checks=None)
            if len(parts[part]) != COLL_FRAMES[part]:
                raise UserError(f"{path} holds {len(parts[part])} frames, expected {COLL_FRAMES[part]}: remove it")
        data = _joined(list(parts.values()), "COLL")
        ends = np.cumsum([len(part) for part in parts.values()])
        data.split = Split(*(np.arange(end - len(part), end) for end, part in zip(ends, parts.values())))
        pin(cache, list(names.values()))
        keep(data, parsed)
    data = read_file(parsed, units={"R": "Ang"}, checks=checks)
    data.source = "COLL"
    return data


def _joined(parts: list[DataContainer], source: str) -> DataContainer:
    N, Z, R = (np.concatenate([getattr(part, name) for part in parts]) for name in ("N", "Z", "R"))
    return DataContainer(
        N,
        Z,
        R,
        {key: np.concatenate([part.targets[key] for part in parts]) for key in ("energy", "forces")},
        source=source,
        check=False,
    )


def _tar_members(path: Path, wanted: list[str]) -> dict[str, bytes]:
    """Return the content of files of an archive, which are named by the end of their paths."""
    found = {}
    try:
        with tarfile.open(path, "r:*") as archive:
            for member in archive:
                name = next((name for name in wanted if member.isfile() and member.name.endswith("/" + name)), None)
                if name is not None and (file := archive.extractfile(member)) is not None:
                    found[name] = file.read()
    except (tarfile.TarError, EOFError, OSError) as error:
        raise UserError(f"{path} is damaged or truncated ({error}): remove it to download it again") from None
    missing = [name for name in wanted if name not in found]
    if missing:
        raise UserError(f"{path} holds no {missing[0]}: this is not rMD17's archive")
    return found
