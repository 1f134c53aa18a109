"""Data sets: molecules, split and properties to learn, as the `data` section of a configuration describes them."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dimenet_tf.data import oc20, trajectories
from dimenet_tf.data.embedded import ethanol_xtb, oc20_sample, sample, water_xtb
from dimenet_tf.data.qm9 import FILTERS, qm9
from dimenet_tf.errors import UserError, check_choice, unknown_name
from dimenet_tf.properties.columns import Columns
from dimenet_tf.properties.property import Property, side_by_side
from dimenet_tf.structures.checks import ON_BAD, OUTLIERS, Checks, summary
from dimenet_tf.structures.container import DataContainer
from dimenet_tf.structures.elements import symbols
from dimenet_tf.structures.quantities import PROPERTIES
from dimenet_tf.structures.readers import read_file
from dimenet_tf.structures.splits import Split, given_split, random_split
from dimenet_tf.structures.stress import check_stress

DATASETS = {
    "sample": lambda config, checks: sample(checks),
    "ethanol_xtb": lambda config, checks: ethanol_xtb(checks),
    "water_xtb": lambda config, checks: water_xtb(checks),
    "qm9": lambda config, checks: qm9(config.filter, config.cache, checks),
    "md17": lambda config, checks: trajectories.md17(config.molecule, config.cache, checks),
    "rmd17": lambda config, checks: trajectories.rmd17(config.molecule, config.fold, config.cache, checks),
    "md17_ccsd": lambda config, checks: trajectories.md17_ccsd(config.molecule, config.cache, checks),
    "coll": lambda config, checks: trajectories.coll(config.cache, checks),
    "oc20_sample": lambda config, checks: oc20_sample(checks),
    "oc20_is2re": lambda config, checks: oc20.is2re(oc20.folder_of(config.name, config.path), checks),
    "oc20_s2ef": lambda config, checks: oc20.s2ef(oc20.folder_of(config.name, config.path), checks, config.relaxations),
}
ABOUT = {
    "sample": "2000 relaxed molecules of H, C, N, O, F with 11 of QM9's properties by GFN2-xTB; embedded",
    "ethanol_xtb": "2000 frames of ethanol at 500 K: energy, forces, dipole, polarizability by GFN2-xTB; embedded",
    "water_xtb": "320 periodic boxes of liquid water: energy, forces, stress by GFN1-xTB; embedded",
    "qm9": "QM9, 130831 relaxed molecules of H, C, N, O, F with 12 properties by B3LYP; downloaded",
    "md17": "MD17, frames of a small molecule (data.molecule) with energy and forces by PBE+vdW-TS; downloaded",
    "rmd17": "revised MD17 with five splits (data.fold), energy and forces by PBE/def2-SVP; downloaded",
    "md17_ccsd": "MD17@CCSD(T), frames of a small molecule (data.molecule) with energy and forces; downloaded",
    "coll": "COLL, collisions of small organic molecules with energy and forces by revPBE-D3; downloaded",
    "oc20_sample": "320 slabs with adsorbates and their energies after relaxation, by EMT; four test splits; embedded",
    "oc20_is2re": "OC20's IS2RE in data.path: initial structures, energies after relaxation",
    "oc20_s2ef": "OC20's S2EF in data.path: structures with energy and forces",
}
SPLITS = ("auto", "given", "random")


def datasets() -> dict[str, str]:
    """Return the known data sets: a line of description by name. The names are the values of `data.name`.

    Examples
    --------
    >>> import dimenet_tf
    >>> list(dimenet_tf.datasets())
    ['sample', 'ethanol_xtb', 'water_xtb', 'qm9', 'md17', 'rmd17', 'md17_ccsd', 'coll', 'oc20_sample', ...]
    """
    return dict(ABOUT)


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """The `data` section of a configuration.

    Parameters
    ----------
    name : known data set, a key of `DATASETS`
    path : instead of a name, a file: npz, extended XYZ, an ASE database or another format of ASE; see `read_file`.
        With oc20_is2re and oc20_s2ef, the folder that holds `train` and `val_id`; see `dimenet_tf.data.oc20`
    target : property to learn, or several: `mu`, `[U0, U, H, G]`, `[energy, forces]` (or with `stress`)
    num_train, num_valid : numbers of molecules; 80 % and 10 % of all if left out. The others are test molecules.
    split : "random", "given" (the split that comes with the data), or "auto": "given" if the data have a split
    split_seed : seed of the random split
    heads : names of heads by target, instead of the defaults: {"mu": "dipole_magnitude"}; see
        `dimenet_tf.properties.heads.choose_head`
    references : "auto", "fit", "isolated_atoms", "mean", "none" or values per element; see `fit_reference`. For
        adsorption energies of OC20, "auto" is "mean"
    standardize : divide the targets by their spread; an energy with forces by the forces' spread times 1 Angstrom
    keys : names in the file by the library's names: {"energy": "REF_energy"}; {"weight": "config_weight"} is the weight
        of each molecule in the loss
    units : units of properties in a file: {"energy": "kcal/mol"}; for unknown targets, the unit to print
    molecule : for md17, rmd17 and md17_ccsd
    fold : one of rmd17's five splits
    relaxations : for oc20_s2ef, a folder of IS2RE, whose training structures before and after their relaxations are
        trained on as well; see `dimenet_tf.data.oc20.s2ef`
    filter : for qm9, "correct" or "release"; see `dimenet_tf.data.qm9`
    cache : folder of downloaded data; the user's cache folder if left out
    on_bad : "error" or "drop" for unusable molecules, which `dimenet_tf.structures.checks` finds: NaN, invalid atomic
        numbers, overlapping atoms, single atoms without an energy, repeated ids, more than `max_atoms` atoms, no value
        of any `target`, outliers
    max_atoms : largest number of atoms in a molecule; None for no limit
    outliers : "bad" or "keep" for molecules with an outlying value of `target`: "keep" trains on them; see
        `dimenet_tf.structures.outliers`

    Examples
    --------
    >>> DataConfig(name="ethanol_xtb", target="energy, forces").target_names
    ['energy', 'forces']
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
    relaxations: str | None = None
    filter: str = "correct"
    cache: str | None = None
    on_bad: str = "error"
    max_atoms: int | None = 1000
    outliers: str = "bad"

    @property
    def target_names(self) -> list[str]:
        """List of the targets, whether `target` is a list or a comma-separated string."""
        if isinstance(self.target, str):
            return [name.strip() for name in self.target.split(",")]
        return list(self.target)


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Molecules, their split, and the properties to learn.

    Parameters
    ----------
    config : the `data` section
    container : molecules and labels
    split : training, validation and test molecules
    properties : targets by name, in the order of the configuration. Forces and stress are not among them, because they
        are derivatives of an energy: see `Property.has_forces`.

    Examples
    --------
    >>> dataset = load_dataset(DataConfig(target="U0, mu", num_train=1600, num_valid=200))
    >>> dataset
    Dataset(embedded sample: U0 in eV, mu in D; 1600 training, 200 validation, 200 test molecules)
    >>> dataset.properties["mu"].unit, dataset.targets.shape
    ('D', (2000, 2))
    """

    config: DataConfig
    container: DataContainer
    split: Split
    properties: dict[str, Property]

    def __repr__(self) -> str:
        forces = [f"forces in {PROPERTIES['forces'].unit}"] * self.has_forces
        stress = [f"stress in {PROPERTIES['stress'].unit}"] * self.has_stress
        targets = ", ".join([*map(str, self.properties.values()), *forces, *stress])
        train, valid, test = map(len, self.split)
        return (
            f"Dataset({self.container.source}: {targets}; {train} training, {valid} validation, {test} test molecules)"
        )

    @property
    def names(self) -> list[str]:
        """Names of the targets, without forces and stress."""
        return list(self.properties)

    @property
    def has_forces(self) -> bool:
        """Whether forces are learned, as the negative gradient of an energy."""
        return self.energy is not None

    @property
    def has_stress(self) -> bool:
        """Whether the stress is learned, as the derivative of an energy by strain."""
        return any(each.has_stress for each in self.properties.values())

    @property
    def energy(self) -> str | None:
        """Name of the energy whose negative gradient is learned; None if no forces are learned."""
        return next((name for name, each in self.properties.items() if each.has_forces), None)

    @functools.cached_property
    def columns(self) -> Columns:
        """Layout of arrays that hold all targets."""
        return Columns({name: each.shape for name, each in self.properties.items()})

    @property
    def targets(self) -> np.ndarray:
        """Labels of all molecules, (molecules, columns) float64; NaN where a label is missing."""
        return self.labels(self.container)

    def labels(self, container: DataContainer) -> np.ndarray:
        """Return the labels of other or fewer molecules, (molecules, columns) float64; NaN where one is missing.

        Examples
        --------
        >>> dataset = load_dataset(DataConfig(target="U0, mu"))
        >>> dataset.labels(dataset.container.select([0, 1])).round(3)
        array([[-20.767,   0.   ],
               [-16.502,   1.783]])
        """
        return self.columns.join({name: container.labels(name) for name in self.properties})

    @property
    def learned(self) -> list[str]:
        """Names of the targets, and "forces" and "stress" if they are learned."""
        return [*self.properties, *["forces"] * self.has_forces, *["stress"] * self.has_stress]

    def num_labels(self) -> dict[str, int]:
        """Return the number of molecules with a value of each target, by name.

        Examples
        --------
        >>> load_dataset(DataConfig(target="U0, mu")).num_labels()
        {'U0': 2000, 'mu': 2000}
        """
        return {name: int(np.count_nonzero(self.container.labelled(name))) for name in self.learned}

    def notes(self) -> list[str]:
        """Return remarks on the file, single atoms, outliers, missing labels and weights, one line each.

        Examples
        --------
        >>> dataset = load_dataset(DataConfig(target="U0"))
        >>> dataset.container.weight[:] = np.linspace(0.5, 1.5, len(dataset.container))
        >>> dataset.notes()
        ['weights of molecules in the loss: 0.5 to 1.5, mean 1']
        """
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
            values = next((data.isolated[name] for name in self.properties if name in data.isolated), {})
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
        for name, each in self.properties.items():
            everything, labelled = (
                set(np.unique(data.Z[some[data.molecule_of_atom]])) for some in (train, train & data.labelled(name))
            )
            if everything != labelled and each.fits_elements:
                notes.append(
                    f"no training molecule with a value of '{name}' contains {symbols(sorted(everything - labelled))}, "
                    "so the reference value is 0"
                )
        return notes

    @functools.cached_property
    def sigmas(self) -> dict[str, float]:
        """Standard deviation of each target over the whole data set, by name; see `Property.spread`."""
        return {name: each.spread(self.container) for name, each in self.properties.items()}

    def fitted(self, name: str, additive: bool = True) -> Property:
        """Return a target with reference values and scale fitted to the training molecules; see `Property.fitted`.

        Examples
        --------
        >>> dataset = load_dataset(DataConfig(target="U0"))
        >>> round(dataset.fitted("U0").reference.scale, 2)  # eV
        0.87
        """
        return self.properties[name].fitted(self.container, self.split.train, additive)

    def baseline(self) -> np.ndarray:
        """Predict all targets by least-squares fits per element, (molecules, columns), to compare errors with.

        Examples
        --------
        >>> dataset = load_dataset(DataConfig(target="U0"))
        >>> dataset.targets[:2].ravel().round(2), dataset.baseline()[:2].ravel().round(2)
        (array([-20.77, -16.5 ]), array([-21.04, -17.18]))
        """
        fits = {name: each.baseline(self.container, self.split.train) for name, each in self.properties.items()}
        return self.columns.join(fits)


def load_container(config: DataConfig) -> DataContainer:
    """Open a file or a named data set, and refuse or drop its unusable molecules.

    Raises
    ------
    UserError
        For unknown choices, keys of other data sets, and unusable molecules.
    """
    check_choice("data.filter", config.filter, FILTERS)
    check_choice("data.split", config.split, SPLITS)
    check_choice("data.on_bad", config.on_bad, ON_BAD)
    check_choice("data.outliers", config.outliers, OUTLIERS)
    if config.max_atoms is not None and config.max_atoms < 1:
        raise UserError(f"data.max_atoms = {config.max_atoms} must be greater than 0, or None for no limit")
    checks = Checks(config.on_bad, config.max_atoms, config.target_names, config.outliers)
    if config.path is not None and config.name not in oc20.FOLDERS:
        for key in ("molecule", "fold", "filter", "cache", "relaxations"):
            if getattr(config, key) != getattr(DataConfig, key):
                raise UserError(
                    f"data.{key} belongs to data.name and has no effect on data.path; set "
                    f"data.{key}={getattr(DataConfig, key)}"
                )
        own = {name: unit for name, unit in config.units.items() if name in PROPERTIES or name == "R"}
        return read_file(config.path, config.keys, own, checks)
    if config.name is None:
        raise UserError(f"missing data: set data.path to a file, or data.name to one of {', '.join(DATASETS)}")
    if config.name not in DATASETS:
        raise unknown_name("data.name", str(config.name), DATASETS)
    for key, value in (("keys", config.keys), ("units", config.units)):
        if value:
            raise UserError(
                f"data.{key} belongs to data.path; remove data.{key}, because names "
                f"and units of data set '{config.name}' are known"
            )
    if config.molecule is not None and config.name not in ("md17", "rmd17", "md17_ccsd"):
        raise UserError(
            f"data.molecule = {config.molecule}: data set '{config.name}' has no choice of molecules; "
            "remove data.molecule"
        )
    if config.fold != 1 and config.name != "rmd17":
        raise UserError(f"data.fold = {config.fold}: only rmd17 has several splits; remove data.fold")
    if config.relaxations is not None and config.name != "oc20_s2ef":
        raise UserError(f"data.relaxations = {config.relaxations} belongs to data.name=oc20_s2ef; remove it")
    return DATASETS[config.name](config, checks)


def load_dataset(config: DataConfig, split: Split | None = None, container: DataContainer | None = None) -> Dataset:
    """Load a data set, split it and prepare the properties to learn.

    Parameters
    ----------
    config : the `data` section
    split : of an earlier run; a new one if left out
    container : the data, if they are loaded already

    Raises
    ------
    UserError
        For unknown or constant targets, options that fit none of the targets, splits that do not fit the data, elements
        without a training molecule, and targets without a label in the training or the validation molecules.

    Examples
    --------
    >>> dataset = load_dataset(DataConfig(name="ethanol_xtb", target="energy, forces"))
    >>> dataset.learned, dataset.energy, dataset.columns.width
    (['energy', 'forces'], 'energy', 1)
    """
    container = load_container(config) if container is None else container
    properties = _properties(config, container)
    for each in properties.values():
        each.check_labels(container)
    if split is None:
        derived = [name for name in ("forces", "stress") if name in config.target_names]
        split = _split(config, container, [*properties, *derived])
    split.check(len(container), container.source)
    unseen = sorted(set(container.elements) - set(container.select(split.train).elements))
    if unseen:
        raise UserError(
            f"{container.source}: no training molecule contains {symbols(unseen)}, but others do; "
            "choose another data.split_seed or data.num_train, or leave these molecules out"
        )
    dataset = Dataset(config, container, split, properties)
    _check_parts(dataset)
    return dataset


def _properties(config: DataConfig, container: DataContainer) -> dict[str, Property]:
    """Make the properties that a configuration names, and check that its options fit them."""
    targets = config.target_names
    if not all(isinstance(name, str) for name in targets):
        raise UserError(f"data.target must be a name or a list of names; got {config.target!r}")
    for name in config.units:
        if name not in (*targets, *container.targets, "R", "forces", "virial"):
            raise unknown_name("target in data.units", str(name), (*targets, *container.targets))
    has_forces, has_stress = "forces" in targets, "stress" in targets
    names = [name for name in targets if name not in ("forces", "stress")]
    if has_stress and not (has_forces and "energy" in names):
        raise UserError(
            "data.target: a stress is a derivative of the energy, as forces are; set data.target: [energy, forces, "
            "stress]"
        )
    if "virial" in targets:
        raise UserError("data.target: virials are learned as stress; set data.target: [energy, forces, stress]")
    if has_forces and "energy" not in names:
        raise UserError("data.target: forces are the gradient of an energy; set data.target: [energy, forces]")
    if isinstance(config.references, Mapping) and len(names) > 1:
        raise UserError("data.references: values per element need a single target; got " + ", ".join(names))
    if not names or len(set(targets)) < len(targets):
        raise UserError(f"data.target must name at least one target, and each only once; got {config.target!r}")
    for name in config.heads:
        if name not in names:
            raise unknown_name("target in data.heads", name, names)
    references = config.references
    if references == "auto" and config.name in oc20.NAMES:
        references = "mean"  # energies of adsorption are no sums over elements
    properties = side_by_side(
        Property.of(
            name,
            config.units.get(name),
            head=config.heads.get(name),
            references=references,
            standardize=config.standardize,
            has_forces=has_forces and name == "energy",
            has_stress=has_stress and name == "energy",
        )
        for name in names
    )
    summable = any(each.extensive and not each.shape for each in properties.values())
    if config.references == "isolated_atoms" and not summable:
        raise UserError(
            f"data.references=isolated_atoms: {', '.join(names)} cannot be summed over atoms; set it to auto"
        )
    return properties


def _check_parts(dataset: Dataset) -> None:
    """Raise a UserError unless training and validation molecules have labels of each target, and weights above 0."""
    data, parts = dataset.container, (("train", "training"), ("valid", "validation"))
    if dataset.has_stress:
        if data.cells is None:
            raise UserError(
                f"{data.source}: no structure is periodic, and only periodic ones have a stress: leave 'stress' out of "
                "data.target, or give the structures cells"
            )
        check_stress(data.labels("stress"), data.source, "stress" in dataset.config.units)
    unlabelled = np.ones(len(data), bool)
    for name in dataset.learned:
        data.labels(name)  # for an unknown target, an error that names the closest one
        labelled = data.labelled(name)
        unlabelled &= ~labelled
        for part, what in parts:
            molecules = getattr(dataset.split, part)
            if not labelled[molecules].any():
                raise UserError(
                    f"{data.source}: no value of '{name}' in the {len(molecules)} {what} molecules "
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
    """Make the split of a configuration; a random one gives every part its share of each combination of labels."""
    if container.split is not None and config.split != "random":
        return given_split(container.split, config.num_train, config.num_valid, config.split_seed)
    if config.split == "given":
        raise UserError(
            f"data.split: given needs a split in the data, but {container.source} has none; set data.split=random"
        )
    groups = None  # of molecules with the same labels
    labelled = np.stack([container.labelled(name) for name in learned if name in container.targets])
    if not labelled.all():
        groups = 2 ** np.arange(len(labelled)) @ labelled
    return random_split(len(container), config.num_train, config.num_valid, config.split_seed, groups)


def describe(dataset: Dataset) -> dict[str, Any]:
    """Describe a data set for `data.json` of a run folder."""
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
            name: {"unit": each.unit, "sigma": dataset.sigmas[name]} for name, each in dataset.properties.items()
        },
        **{name: {"unit": PROPERTIES[name].unit} for name in ("forces", "stress") if name in dataset.learned},
    }
