"""The `data` section of a configuration -> molecules, split and references."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dimenet_tf.data.container import DataContainer, sample
from dimenet_tf.data.properties import Property, find_property
from dimenet_tf.data.qm9 import FILTERS, qm9
from dimenet_tf.data.references import Reference, fit_reference
from dimenet_tf.data.splits import Split, random_split
from dimenet_tf.elements import symbols
from dimenet_tf.errors import UserError, unknown_name

DATASETS = {
    "sample": lambda config: sample(),
    "qm9": lambda config: qm9(config.filter, config.cache),
}


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """The `data` section.

    Parameters
    ----------
    name : data set that the library knows: "sample" or "qm9"
    path : instead, a file: npz, extended XYZ or another format of ASE
    target : property to learn, or several: `mu`, `[U0, U, H, G]`
    num_train, num_valid : molecules; 80 % and 10 % of all where left out. The rest is tested on.
    split_seed : of the random split
    references : "auto", "fit", "mean", "none" or values per element; see `fit_reference`
    standardize : divide the targets by their spread
    units : mapping from targets that the library does not know to their units
    filter : for qm9, "correct" or "release"; see `dimenet_tf.data.qm9`
    cache : folder of downloaded data; the user's cache folder where left out
    """

    name: str | None = "sample"
    path: str | None = None
    target: str | Sequence[str] = "U0"
    num_train: int | None = None
    num_valid: int | None = None
    split_seed: int = 42
    references: str | Mapping[str, float] = "auto"
    standardize: bool = True
    units: Mapping[str, str] = dataclasses.field(default_factory=dict)
    filter: str = "correct"
    cache: str | None = None

    @property
    def target_names(self) -> list[str]:
        """The targets as a list, also where one or a comma-separated text was given."""
        if isinstance(self.target, str):
            return [name.strip() for name in self.target.split(",")]
        return list(self.target)


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Molecules with everything that training and evaluation need to know of them."""

    container: DataContainer
    split: Split
    names: list[str]
    kinds: list[Property]
    references: list[Reference]

    @property
    def targets(self) -> np.ndarray:
        """(molecules, targets) float64."""
        return np.stack([self.container.target(name) for name in self.names], axis=1)

    @property
    def sigmas(self) -> np.ndarray:
        """(targets,) standard deviations over the whole data set, for std. MAE and logMAE (DimeNet, App. C)."""
        return self.targets.std(axis=0)

    def baseline(self) -> np.ndarray:
        """(molecules, targets): the per-element least squares fit to the training molecules, to judge errors by."""
        composition = self.container.composition()
        fits = [
            fit_reference(self.container, name, kind, self.split.train, "fit").baseline(composition)
            for name, kind in zip(self.names, self.kinds)
        ]
        return np.stack(fits, axis=1)


def load_container(config: DataConfig) -> DataContainer:
    """Open the file or the named data set."""
    if config.filter not in FILTERS:
        raise UserError(f"data.filter: '{config.filter}' is none of {', '.join(FILTERS)}")
    if config.path is not None:
        return DataContainer.open(config.path)
    if config.name not in DATASETS:
        raise unknown_name("data.name", str(config.name), DATASETS)
    return DATASETS[config.name](config)


def load_dataset(config: DataConfig, split: Split | None = None, container: DataContainer | None = None) -> Dataset:
    """Load the data (or take them), split them (or take the split of an earlier run) and fit the references.

    Raises
    ------
    UserError
        For unknown or constant targets, options that belong to none of the targets, splits that do not fit, and
        elements that no training molecule contains.
    """
    container = load_container(config) if container is None else container
    names = config.target_names
    if not all(isinstance(name, str) for name in names):
        raise UserError(f"data.target = {config.target}: targets are names")
    for name in config.units:
        if name not in names:
            raise unknown_name("target in data.units", str(name), names)
    if isinstance(config.references, Mapping) and len(names) > 1:
        raise UserError("data.references: values per element are for a single target")
    if not names or len(set(names)) < len(names):
        raise UserError(f"data.target = {config.target}: name at least one target, and each only once")
    kinds = [find_property(name, config.units.get(name)) for name in names]
    for name in names:
        if container.target(name).std() == 0:
            raise UserError(f"{container.source}: all molecules have the same '{name}'; there is nothing to learn")
    if split is None:
        split = random_split(len(container), config.num_train, config.num_valid, config.split_seed)
    unseen = sorted(set(container.elements) - set(container.select(split.train).elements))
    if unseen:
        raise UserError(
            f"{container.source}: no training molecule contains {symbols(unseen)}, but others do; "
            "choose another data.split_seed or data.num_train, or leave these molecules out"
        )
    references = [
        fit_reference(container, name, kind, split.train, config.references, config.standardize)
        for name, kind in zip(names, kinds)
    ]
    return Dataset(container, split, names, kinds, references)


def describe(dataset: Dataset) -> dict[str, Any]:
    """Return what a run folder tells about its data."""
    return {
        "source": dataset.container.source,
        "sha256": dataset.container.checksum(),
        "molecules": len(dataset.container),
        "elements": dataset.container.elements,
        "split": {key: len(value) for key, value in dataset.split._asdict().items()},
        "targets": {
            name: {"unit": kind.unit, "sigma": float(sigma)}
            for name, kind, sigma in zip(dataset.names, dataset.kinds, dataset.sigmas)
        },
    }
