"""The `data` section of a configuration -> molecules, split and references."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dimenet_tf.data import trajectories
from dimenet_tf.data.embedded import ethanol_xtb, sample
from dimenet_tf.data.qm9 import FILTERS, qm9
from dimenet_tf.errors import UserError, check_choice, unknown_name
from dimenet_tf.properties.columns import Columns
from dimenet_tf.properties.references import Reference, check_energies, fit_reference
from dimenet_tf.structures.checks import ON_BAD, OUTLIERS, Checks, summary
from dimenet_tf.structures.container import DataContainer
from dimenet_tf.structures.elements import symbols
from dimenet_tf.structures.quantities import PROPERTIES, Property, find_property
from dimenet_tf.structures.readers import read_file
from dimenet_tf.structures.splits import Split, given_split, random_split

DATASETS = {
    "sample": lambda config, checks: sample(checks),
    "ethanol_xtb": lambda config, checks: ethanol_xtb(checks),
    "qm9": lambda config, checks: qm9(config.filter, config.cache, checks),
    "md17": lambda config, checks: trajectories.md17(config.molecule, config.cache, checks),
    "rmd17": lambda config, checks: trajectories.rmd17(config.molecule, config.fold, config.cache, checks),
    "md17_ccsd": lambda config, checks: trajectories.md17_ccsd(config.molecule, config.cache, checks),
    "coll": lambda config, checks: trajectories.coll(config.cache, checks),
}
ABOUT = {
    "sample": "2000 relaxed molecules of H, C, N, O, F with 11 of QM9's properties by GFN2-xTB; embedded",
    "ethanol_xtb": "2000 frames of ethanol at 500 K: energy, forces, dipole, polarizability by GFN2-xTB; embedded",
    "qm9": "QM9, 130831 relaxed molecules of H, C, N, O, F with 12 properties by B3LYP; downloaded",
    "md17": "MD17, frames of a small molecule (data.molecule) with energy and forces by PBE+vdW-TS; downloaded",
    "rmd17": "revised MD17 with five splits (data.fold), energy and forces by PBE/def2-SVP; downloaded",
    "md17_ccsd": "MD17@CCSD(T), frames of a small molecule (data.molecule) with energy and forces; downloaded",
    "coll": "COLL, collisions of small organic molecules with energy and forces by revPBE-D3; downloaded",
}
SPLITS = ("auto", "given", "random")


def datasets() -> dict[str, str]:
    """Return the data sets that the library knows, one line by name; the names are values of `data.name`.

    Examples
    --------
    >>> import dimenet_tf
    >>> list(dimenet_tf.datasets())
    ['sample', 'ethanol_xtb', 'qm9', 'md17', 'rmd17', 'md17_ccsd', 'coll']
    """
    return dict(ABOUT)


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """The `data` section.

    Parameters
    ----------
    name : data set that the library knows, a key of `DATASETS`
    path : instead, a file: npz, extended XYZ, an ASE database or another format of ASE; see `read_file`
    target : property to learn, or several: `mu`, `[U0, U, H, G]`, `[energy, forces]`
    num_train, num_valid : molecules; 80 % and 10 % of all where left out. The rest is tested on.
    split : "random", "given" (the one that comes with the data), or "auto": that if there is one
    split_seed : of the random split
    heads : how targets are made of what the model says of the atoms, where it is not the usual way:
        {"mu": "dipole_magnitude"}; see `dimenet_tf.properties.heads.choose_heads`
    references : "auto", "fit", "isolated_atoms", "mean", "none" or values per element; see `fit_reference`
    standardize : divide the targets by their spread; an energy with forces by the forces' spread times 1 Angstrom
    keys : names that a file has for the library's: {"energy": "REF_energy"}; {"weight": "config_weight"} is the weight
        of each molecule in the loss
    units : of properties in a file: {"energy": "kcal/mol"}; of targets that the library does not know, to print
    molecule : of md17, rmd17 and md17_ccsd
    fold : of rmd17's five splits
    filter : for qm9, "correct" or "release"; see `dimenet_tf.data.qm9`
    cache : folder of downloaded data; the user's cache folder where left out
    on_bad : what becomes of molecules that nothing can be learned from: "error" or "drop"; see
        `dimenet_tf.structures.checks`, which finds them: NaN, atomic numbers that are none, atoms on top of each other,
        single atoms without an energy, ids twice, more than `max_atoms` atoms, no value of any `target`, outliers
    max_atoms : of a molecule; None for no limit
    outliers : molecules with a value of `target` far from all others: "bad", or "keep" to train on them; see
        `dimenet_tf.structures.outliers`
    """

    name: str | None = "sample"
    path: str | None = None
    target: str | Sequence[str] = "U0"
    num_train: int | None = None
    num_valid: int | None = None
    split: str = "auto"
    split_seed: int = 42
    heads: Mapping[str, str] = dataclasses.field(default_factory=dict)
    references: str | Mapping[str, float] = "auto"
    standardize: bool = True
    keys: Mapping[str, str] = dataclasses.field(default_factory=dict)
    units: Mapping[str, str] = dataclasses.field(default_factory=dict)
    molecule: str | None = None
    fold: int = 1
    filter: str = "correct"
    cache: str | None = None
    on_bad: str = "error"
    max_atoms: int | None = 1000
    outliers: str = "bad"

    @property
    def target_names(self) -> list[str]:
        """The targets as a list, also where one or a comma-separated text was given."""
        if isinstance(self.target, str):
            return [name.strip() for name in self.target.split(",")]
        return list(self.target)


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Molecules with everything that training and evaluation need to know of them."""

    config: DataConfig
    container: DataContainer
    split: Split
    names: list[str]
    kinds: list[Property]
    has_forces: bool = False
    """The forces are learned as well, as the negative gradient of `energy`."""

    def __repr__(self) -> str:
        units = [f"{name} in {kind.unit}" if kind.unit else name for name, kind in zip(self.names, self.kinds)]
        targets = ", ".join([*units, *["forces in eV/Ang"] * self.has_forces])
        train, valid, test = map(len, self.split)
        return (
            f"Dataset({self.container.source}: {targets}; {train} training, {valid} validation, {test} test molecules)"
        )

    @functools.cached_property
    def columns(self) -> Columns:
        """Where each target stands in the array of all."""
        return Columns({name: kind.shape for name, kind in zip(self.names, self.kinds)})

    @property
    def targets(self) -> np.ndarray:
        """(molecules, columns) float64; NaN where a molecule lacks a target."""
        return self.labels(self.container)

    def labels(self, container: DataContainer) -> np.ndarray:
        """Return the targets of other or fewer molecules, (molecules, columns) float64; NaN where one is missing."""
        return self.columns.join({name: container.labels(name) for name in self.names})

    @property
    def learned(self) -> list[str]:
        """Names of the targets, and "forces" where they are learned."""
        return [*self.names, *["forces"] * self.has_forces]

    def num_labels(self) -> dict[str, int]:
        """Return how many molecules have a value of each target, by name."""
        return {name: int(np.count_nonzero(self.container.labelled(name))) for name in self.learned}

    def notes(self) -> list[str]:
        """Return remarks for the user, one line each, about the file, single atoms, outliers, labels and weights."""
        data, notes = self.container, [*self.container.notes, *self._notes_on_references()]
        if data.outliers:
            notes.append(f"trains on outliers (data.outliers=keep): {summary(data.outliers, first=True)}")
        if (data.weight != 1).any():
            low, high = np.min(data.weight), np.max(data.weight)
            notes.append(f"weights of molecules in the loss: {low:g} to {high:g}, mean {data.weight.mean():.3g}")
        return notes

    def _notes_on_references(self) -> list[str]:
        data, references, notes = self.container, self.config.references, []
        if number := len(data.set_aside):
            values = next((data.isolated[name] for name in self.names if name in data.isolated), {})
            atoms = f"{number} isolated atom{'s' if number > 1 else ''}"
            atoms += f" ({symbols(sorted(values))})" if values else ""
            if values and references == "auto":
                have = "have energies" if number > 1 else "has an energy"
                notes.append(f"{atoms} {have}: data.references=isolated_atoms takes these as reference energies")
            elif values and references == "isolated_atoms":
                notes.append(f"reference energies are those of {atoms}")
            else:
                notes.append(f"{atoms} not used: single atoms are not trained on")
        train = np.isin(np.arange(len(data)), self.split.train)
        for name, kind in zip(self.names, self.kinds):
            everything, labelled = (
                set(np.unique(data.Z[some[data.molecule_of_atom]])) for some in (train, train & data.labelled(name))
            )
            fitted = references == "fit" or (references == "auto" and kind.extensive)
            if everything != labelled and fitted and kind.shape != (3,):
                notes.append(
                    f"no training molecule with a value of '{name}' contains {symbols(sorted(everything - labelled))}, "
                    "so the reference value is 0"
                )
        return notes

    @property
    def units(self) -> list[str]:
        """Of each target."""
        return [kind.unit for kind in self.kinds]

    @functools.cached_property
    def sigmas(self) -> np.ndarray:
        """(targets,) standard deviations over the whole data set, for std. MAE and logMAE (DimeNet, App. C).

        Of vectors the root mean square of the components, of tensors that of their differences from the mean isotropic
        tensor: no rotation of the molecules changes them.
        """
        everything = np.arange(len(self.container))
        fits = (fit_reference(self.container, n, kind, everything, "mean") for n, kind in zip(self.names, self.kinds))
        return np.array([fit.scale for fit in fits])

    def reference(self, name: str, additive: bool = True) -> Reference:
        """Fit what is taken off a target, and its scale; `additive` as in `fit_reference`."""
        kind = self.kinds[self.names.index(name)]
        config, train = self.config, self.split.train
        fit = fit_reference(self.container, name, kind, train, config.references, config.standardize, additive)
        if additive and not self.container.outliers:  # a fit that was asked to include them fits nothing else
            check_energies(self.container, name, kind, train, config.references, fit)
        if name == "energy" and self.has_forces and config.standardize:
            forces = self.container.select(train).labels("forces")
            forces = forces[np.isfinite(forces)]
            return fit._replace(scale=float(np.sqrt((forces**2).mean())) or 1.0)
        return fit

    def baseline(self) -> np.ndarray:
        """(molecules, columns): the per-element least squares fit to the training molecules, to judge errors by.

        Of tensors isotropic; of vectors zero.
        """
        composition = self.container.composition()
        fits = {
            name: fit_reference(self.container, name, kind, self.split.train, "fit").baseline(composition, kind.shape)
            for name, kind in zip(self.names, self.kinds)
        }
        return self.columns.join(fits)


def load_container(config: DataConfig) -> DataContainer:
    """Open the file or the named data set, and refuse or drop its bad molecules."""
    check_choice("data.filter", config.filter, FILTERS)
    check_choice("data.split", config.split, SPLITS)
    check_choice("data.on_bad", config.on_bad, ON_BAD)
    check_choice("data.outliers", config.outliers, OUTLIERS)
    if config.max_atoms is not None and config.max_atoms < 1:
        raise UserError(f"data.max_atoms = {config.max_atoms} must be greater than 0, or None for no limit")
    checks = Checks(config.on_bad, config.max_atoms, config.target_names, config.outliers)
    if config.path is not None:
        for key in ("molecule", "fold", "filter", "cache"):
            if getattr(config, key) != getattr(DataConfig, key):
                raise UserError(
                    f"data.{key} belongs to data.name; data.path takes a file as it is: set "
                    f"data.{key}={getattr(DataConfig, key)}"
                )
        own = {name: unit for name, unit in config.units.items() if name in PROPERTIES or name == "R"}
        return read_file(config.path, config.keys, own, checks)
    if config.name is None:
        raise UserError(f"which data? data.path=FILE, or data.name= one of {', '.join(DATASETS)}")
    if config.name not in DATASETS:
        raise unknown_name("data.name", str(config.name), DATASETS)
    for key, value in (("keys", config.keys), ("units", config.units)):
        if value:
            raise UserError(f"data.{key} belongs to data.path; {config.name} has known names and units")
    if config.molecule is not None and config.name not in ("md17", "rmd17", "md17_ccsd"):
        raise UserError(f"data.molecule = {config.molecule}: {config.name} is no data set of several molecules")
    if config.fold != 1 and config.name != "rmd17":
        raise UserError(f"data.fold = {config.fold}: only rmd17 has several splits")
    return DATASETS[config.name](config, checks)


def load_dataset(config: DataConfig, split: Split | None = None, container: DataContainer | None = None) -> Dataset:
    """Load the data (or take them) and split them (or take the split of an earlier run).

    Raises
    ------
    UserError
        For unknown or constant targets, options that belong to none of the targets, splits that do not fit, elements
        that no training molecule contains, and targets that no training or no validation molecule has a value of.
    """
    container = load_container(config) if container is None else container
    names = config.target_names
    if not all(isinstance(name, str) for name in names):
        raise UserError(f"data.target = {config.target}: targets are names")
    for name in config.units:
        if name not in (*names, *container.targets, "R", "forces"):
            raise unknown_name("target in data.units", str(name), (*names, *container.targets))
    has_forces = "forces" in names
    names = [name for name in names if name != "forces"]
    if has_forces and "energy" not in names:
        raise UserError("data.target: forces are the gradient of an energy: [energy, forces]")
    if isinstance(config.references, Mapping) and len(names) > 1:
        raise UserError("data.references: values per element are for a single target")
    if not names or len(set(names)) < len(names):
        raise UserError(f"data.target = {config.target}: name at least one target, and each only once")
    kinds = [find_property(name, config.units.get(name)) for name in names]
    if config.references == "isolated_atoms" and not any(kind.extensive and not kind.shape for kind in kinds):
        raise UserError(
            f"data.references=isolated_atoms: {', '.join(names)} cannot be summed over atoms; set it to auto"
        )
    for name, kind in zip(names, kinds):
        labels, labelled = container.labels(name), np.flatnonzero(container.labelled(name))
        labels = labels[labelled]
        if kind.shape == (3, 3) and len(labels):
            tensors = labels
            skew = np.abs(tensors - tensors.transpose(0, 2, 1)).max(axis=(1, 2))
            worst = int(skew.argmax())
            if skew[worst] > 1e-2 * np.abs(tensors[worst]).max():
                raise UserError(f"{container.source}: '{name}' of molecule {labelled[worst]} is not symmetric")
        if len(labels) and labels.std() == 0:
            raise UserError(f"{container.source}: all molecules have the same '{name}'; there is nothing to learn")
    if split is None:
        split = _split(config, container, [*names, *["forces"] * has_forces])
    split.check(len(container), container.source)
    unseen = sorted(set(container.elements) - set(container.select(split.train).elements))
    if unseen:
        raise UserError(
            f"{container.source}: no training molecule contains {symbols(unseen)}, but others do; "
            "choose another data.split_seed or data.num_train, or leave these molecules out"
        )
    dataset = Dataset(config, container, split, names, kinds, has_forces)
    _check_parts(dataset)
    return dataset


def _check_parts(dataset: Dataset) -> None:
    """Raise a UserError unless training and validation molecules have a value of each target, and weight."""
    data, parts = dataset.container, (("train", "training"), ("valid", "validation"))
    unlabelled = np.ones(len(data), bool)
    for name in dataset.learned:
        data.labels(name)  # names the closest target if there is none of that name
        labelled = data.labelled(name)
        unlabelled &= ~labelled
        for part, what in parts:
            molecules = getattr(dataset.split, part)
            if not labelled[molecules].any():
                raise UserError(
                    f"{data.source}: none of the {len(molecules)} {what} molecules has a value of '{name}' "
                    f"({np.count_nonzero(labelled)} of {len(labelled)} molecules have one): choose another "
                    f"data.split_seed or a larger data.num_{part}, or leave '{name}' out of data.target"
                )
    if unlabelled.any():
        raise UserError(
            f"{data.source}: {np.count_nonzero(unlabelled)} of {len(data)} molecules have no value of "
            f"{', '.join(dataset.learned)} (first: molecule {np.argmax(unlabelled)}): leave them out"
        )
    for part, what in parts:
        if not data.weight[getattr(dataset.split, part)].any():
            raise UserError(f"{data.source}: all {what} molecules have weight 0; at least one must be greater")


def _split(config: DataConfig, container: DataContainer, learned: Sequence[str]) -> Split:
    if container.split is not None and config.split != "random":
        return given_split(container.split, config.num_train, config.num_valid, config.split_seed)
    if config.split == "given":
        raise UserError(f"data.split: given, but {container.source} comes with no split")
    groups = None  # of molecules with the same labels
    labelled = np.stack([container.labelled(name) for name in learned if name in container.targets])
    if not labelled.all():
        groups = 2 ** np.arange(len(labelled)) @ labelled
    return random_split(len(container), config.num_train, config.num_valid, config.split_seed, groups)


def describe(dataset: Dataset) -> dict[str, Any]:
    """Return what a run folder tells about its data."""
    return {
        "source": dataset.container.source,
        "sha256": dataset.container.checksum(),
        "molecules": len(dataset.container),
        "dropped": len(dataset.container.dropped),
        "isolated_atoms": len(dataset.container.set_aside),
        "labels": dataset.num_labels(),
        "elements": dataset.container.elements,
        "split": {key: len(value) for key, value in dataset.split._asdict().items()},
        "targets": {
            name: {"unit": kind.unit, "sigma": float(sigma)}
            for name, kind, sigma in zip(dataset.names, dataset.kinds, dataset.sigmas)
        },
        **({"forces": {"unit": "eV/Ang"}} if dataset.has_forces else {}),
    }
