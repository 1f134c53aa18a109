"""OC20's tasks IS2RE and S2EF (Chanussot et al., ACS Catal. 11, 6059, 2021), read from folders on disk.

A folder holds `train` and any of the validation splits `val_id`, `val_ood_ads`, `val_ood_cat` and `val_ood_both`, each
in one of the formats of `dimenet_tf.structures.oc20`. The test splits of OC20 have no labels.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from dimenet_tf.errors import UserError
from dimenet_tf.structures.checks import STRICT, Checks
from dimenet_tf.structures.container import DataContainer
from dimenet_tf.structures.oc20 import read_slabs
from dimenet_tf.structures.slabs import Slabs
from dimenet_tf.structures.splits import Split
from dimenet_tf.structures.stress import as_tensors

TRAIN = "train"
VALIDATION = {"val_id": "ID", "val_ood_ads": "OOD Ads", "val_ood_cat": "OOD Cat", "val_ood_both": "OOD Both"}
"""Validation splits of OC20: their names in the papers by the names of their folders."""
FOLDERS = ("oc20_is2re", "oc20_s2ef")
"""Data sets that need `data.path`."""
NAMES = (*FOLDERS, "oc20_sample")


def folder_of(name: str, path: str | None) -> Path:
    """Return the folder of a data set.

    Raises
    ------
    UserError
        If it is not given, or not a folder.
    """
    if path is None:
        raise UserError(
            f"data.name={name} needs data.path, the folder that holds {TRAIN}, {', '.join(VALIDATION)}: OC20 is not "
            "downloaded"
        )
    if not Path(path).is_dir():
        raise UserError(f"data.path = {path} must be a folder with {TRAIN} and {', '.join(VALIDATION)}")
    return Path(path)


def is2re(folder: str | Path, checks: Checks = STRICT) -> DataContainer:
    """Read IS2RE: initial structures, and as `energy` the energy of adsorption after their relaxation.

    Parameters
    ----------
    folder : holds `train/data.lmdb`, `val_id/data.lmdb`, ...
    checks : validation options

    Raises
    ------
    UserError
        For folders without a training or a validation split, splits without `y_relaxed`, and bad structures.
    """
    return _assemble(Path(folder), "IS2RE", checks)


def s2ef(folder: str | Path, checks: Checks = STRICT, relaxations: str | Path | None = None) -> DataContainer:
    """Read S2EF: structures with their energy of adsorption and forces. Fixed atoms have no forces to learn.

    Stresses are read where a file has them, and charges and spins, as of OMol25, so that ions are refused.

    Parameters
    ----------
    folder : holds `train`, `val_id`, ...: folders of `.extxyz.xz` with `.txt.xz`, of `.lmdb` or of `.aselmdb`; or files
        `train.aselmdb`, `val_id.aselmdb`, ...
    checks : validation options
    relaxations : folder of IS2RE; the initial and relaxed structures of its `train` become training structures with
        energies, but without forces

    Raises
    ------
    UserError
        For folders without a training or a validation split, splits without energies or forces, and bad structures.
    """
    more = [] if relaxations is None else _ends(Path(relaxations))
    return _assemble(Path(folder), "S2EF", checks, more)


def split_of(ids: np.ndarray) -> np.ndarray:
    """Return the split of OC20 that structures belong to, (structures,) str, from their ids.

    Examples
    --------
    >>> split_of(np.array(["train/497", "val_ood_ads/582/frame4"])).tolist()
    ['train', 'val_ood_ads']
    """
    return np.array([str(id).partition("/")[0] for id in ids])


def own_split(ids: np.ndarray) -> Split:
    """Return OC20's split: `train` is trained on, `val_id` chooses the best model, and the others test it.

    Without `val_id`, or with no other, the validation split is left empty, and `given_split` takes a share of `train`.

    Examples
    --------
    >>> own_split(np.array(["train/1", "train/2", "val_id/3", "val_ood_cat/4"]))
    Split(2 train, 1 valid, 1 test)
    >>> own_split(np.array(["train/1", "train/2", "val_id/3"]))
    Split(2 train, 0 valid, 1 test)
    """
    splits = split_of(ids)
    in_domain, others = splits == "val_id", np.isin(splits, list(VALIDATION)[1:])
    if not others.any():
        in_domain, others = others, in_domain
    return Split(*(np.flatnonzero(part) for part in (splits == TRAIN, in_domain, others)))


def validation_splits(folder: str | Path) -> dict[str, Slabs]:
    """Read the validation splits of a folder, by their names, with everything that the files say.

    Raises
    ------
    UserError
        For a folder without any.
    """
    parts, _ = _read_splits(Path(folder), VALIDATION)
    if not parts:
        raise UserError(f"{folder} must be a folder with {', '.join(VALIDATION)}, or some of them")
    return parts


def fixed_atoms(slabs: Slabs) -> np.ndarray:
    """Return which atoms are fixed, (atoms,) bool: as the files name them, or those below the surface, or none.

    Examples
    --------
    >>> from dimenet_tf.structures.slabs import SlabsBuilder
    >>> builder = SlabsBuilder("made by hand")
    >>> builder.add("structure 0", Z=[29, 8], R=np.eye(3)[:2], cell=9 * np.eye(3), pbc=[True] * 3, tags=[0, 2])
    >>> fixed_atoms(builder.finish())
    array([ True, False])
    """
    if slabs.fixed is not None:
        return slabs.fixed
    return slabs.tags == 0 if slabs.tags is not None else np.zeros(len(slabs.Z), bool)


def _read_splits(folder: Path, names: Iterable[str]) -> tuple[dict[str, Slabs], list[str]]:
    """Read those splits that are there; return them with notes."""
    notes, parts = [], {}
    for name in names:
        path, file = folder / name, folder / f"{name}.aselmdb"
        if path.exists() and file.exists():
            notes.append(f"{path} is read, {file} is not: a split is read from one of them")
        if path.exists() or file.exists():
            parts[name] = read_slabs(path if path.exists() else file)
    return parts, notes


def _ends(folder: Path) -> list[Slabs]:
    """Read the training structures of IS2RE before and after their relaxations, as frames without forces."""
    parts, _ = _read_splits(folder, [TRAIN])
    if TRAIN not in parts:
        raise UserError(f"data.relaxations = {folder} must be a folder of IS2RE; it has no {TRAIN}")
    slabs = parts[TRAIN]
    if slabs.R_relaxed is None or slabs.energy_relaxed is None:
        raise UserError(
            f"{slabs.source} has no y_relaxed and pos_relaxed, which data.relaxations adds: is it of IS2RE?"
        )
    count = len(slabs.N)
    relaxed = slabs._replace(R=slabs.R_relaxed, energy=slabs.energy_relaxed, frame=np.full(count, "relaxed"))
    initial = slabs._replace(frame=np.full(count, "initial"), notes=())
    unlabelled = np.full((len(slabs.Z), 3), np.nan)
    return [each._replace(forces=unlabelled) for each in (initial, relaxed) if each.energy is not None]


def _assemble(folder: Path, task: str, checks: Checks, more: Sequence[Slabs] = ()) -> DataContainer:
    """Join the splits of a task into one data set. Ids are `split/system` or `split/system/frame`.

    Parameters
    ----------
    folder, task, checks : see `is2re` and `s2ef`
    more : further training structures
    """
    parts, notes = _read_splits(folder, (TRAIN, *VALIDATION))
    if TRAIN not in parts or len(parts) == 1:
        lacking = f"no {TRAIN}" if TRAIN not in parts else f"none of {', '.join(VALIDATION)}"
        raise UserError(f"{folder} has {lacking}: {task} needs {TRAIN} and at least one validation split")
    energy = "energy_relaxed" if task == "IS2RE" else "energy"
    for slabs in parts.values():
        for field in (energy, *["forces"] * (task == "S2EF")):
            if getattr(slabs, field) is None:
                other = ("IS2RE", "S2EF")[task == "IS2RE"]
                raise UserError(
                    f"{slabs.source} has no {field}, which {task} learns; is it a test set, or of {other} "
                    f"(data.name=oc20_{other.lower()})?"
                )
    named = [*parts.items(), *((TRAIN, slabs) for slabs in more)]
    everything = [slabs for _, slabs in named]
    ids = np.concatenate([_ids(name, slabs) for name, slabs in named])

    def joined(field: str) -> np.ndarray:
        return np.concatenate([getattr(slabs, field) for slabs in everything])

    def with_default(field: str, default: float) -> np.ndarray:
        values = [(len(slabs.N), getattr(slabs, field)) for slabs in everything]
        return np.concatenate([np.full(count, default) if value is None else value for count, value in values])

    targets = {"energy": joined(energy)}
    if task == "S2EF":
        targets["forces"] = joined("forces")
        if any(slabs.stress is not None for slabs in everything):
            none = (np.full((len(slabs.N), 6), np.nan) for slabs in everything)
            stresses = [n if slabs.stress is None else slabs.stress for n, slabs in zip(none, everything)]
            targets["stress"] = as_tensors(np.concatenate(stresses))
    data = DataContainer(
        joined("N"),
        joined("Z"),
        joined("R"),
        targets,
        id=ids,
        source=f"OC20 {task} in {folder}",
        split=own_split(ids),
        check=False,
        charge=with_default("charge", 0.0),
        spin=with_default("spin", 1.0),
        cell=joined("cell"),
        pbc=joined("pbc"),
        fixed=np.concatenate([fixed_atoms(slabs) for slabs in everything]),
    )
    data.notes = [*notes, *(note for slabs in everything for note in slabs.notes)]
    return data.checked(checks)


def _ids(name: str, slabs: Slabs) -> np.ndarray:
    """Return the id of each structure: of its split, its system, and its frame if there is one."""
    if slabs.sid is None:
        return np.array([f"{name}/{i}" for i in range(len(slabs.N))])
    if slabs.frame is None:
        return np.array([f"{name}/{sid}" for sid in slabs.sid])
    return np.array([f"{name}/{sid}/{frame}" for sid, frame in zip(slabs.sid, slabs.frame)])
