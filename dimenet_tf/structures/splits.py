"""Splits of a data set into training, validation and test molecules."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from dimenet_tf.errors import UserError


class Split(NamedTuple):
    """Indices of the training, validation and test molecules, each (n,) int64, disjoint.

    Examples
    --------
    >>> Split(np.arange(8), np.array([8]), np.array([9]))
    Split(8 train, 1 valid, 1 test)
    """

    train: np.ndarray
    valid: np.ndarray
    test: np.ndarray

    def __repr__(self) -> str:
        return f"Split({', '.join(f'{len(part)} {name}' for name, part in self._asdict().items())})"

    def check(self, num_molecules: int, source: str) -> None:
        """Raise a UserError for empty parts, unknown molecules, and molecules that occur twice.

        Examples
        --------
        >>> Split(np.arange(8), np.array([7]), np.array([9])).check(10, "split.npz")
        Traceback (most recent call last):
            ...
        dimenet_tf.errors.UserError: split.npz: a molecule is in the split twice; what is tested must not be trained on
        """
        for name, part in self._asdict().items():
            if len(part) == 0:
                raise UserError(f"{source}: the split has no {name} molecules")
        self._check_range(num_molecules, source)
        everything = np.concatenate(self)
        if len(np.unique(everything)) < len(everything):
            raise UserError(f"{source}: a molecule is in the split twice; what is tested must not be trained on")

    def _check_range(self, num_molecules: int, source: str) -> None:
        for name, part in self._asdict().items():
            if ((part < 0) | (part >= num_molecules)).any():
                raise UserError(f"{source}: the split's {name} molecules are not all in 0 ... {num_molecules - 1}")

    def renumbered(self, keep: np.ndarray, source: str) -> Split:
        """Renumber the split after molecules were removed from a data set.

        Parameters
        ----------
        keep : (molecules,) bool
        source : name of the data set for messages

        Examples
        --------
        >>> split = Split(np.array([0, 1]), np.array([2]), np.array([3]))
        >>> split.renumbered(np.array([True, False, True, True]), "data")
        Split(1 train, 1 valid, 1 test)
        """
        self._check_range(len(keep), source)
        number = np.cumsum(keep) - 1
        return Split(*(number[part[keep[part]]] for part in self))

    def save(self, path: str | Path) -> None:
        """Write an npz file, in one step: an interrupted call leaves no partial file.

        Examples
        --------
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Split(np.arange(8), np.array([8]), np.array([9])).save(f"{folder}/split.npz")
        ...     Split.load(f"{folder}/split.npz").test
        array([9])
        """
        new = Path(path).with_name(f".new-{Path(path).name}")
        np.savez_compressed(new, **self._asdict())
        new.replace(path)

    @classmethod
    def load(cls, path: str | Path) -> Split:
        """Read a file that `save` wrote.

        Examples
        --------
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     random_split(10, None, None, seed=1).save(f"{folder}/split.npz")
        ...     Split.load(f"{folder}/split.npz")
        Split(8 train, 1 valid, 1 test)
        """
        with np.load(path, allow_pickle=False) as file:
            return cls(file["train"], file["valid"], file["test"])


def given_split(given: Split, num_train: int | None, num_valid: int | None, seed: int) -> Split:
    """Return the split that comes with the data.

    If it names no validation molecules (MD17@CCSD(T), rMD17), `num_valid` random training molecules become validation
    molecules, 5 % by default. `num_train` limits the number of training molecules.
    """
    train, valid, test = given
    what = f"{len(train)} training and {len(valid)} validation molecules"
    if len(valid) == 0:
        train = np.random.RandomState(seed).permutation(train)
        num_valid = max(1, len(train) // 20) if num_valid is None else num_valid
        num_train = len(train) - num_valid if num_train is None else num_train
        fits = min(num_train, num_valid) >= 1 and num_train + num_valid <= len(train)
        train, valid = train[:num_train], train[len(train) - num_valid :]
    else:
        wanted = ((num_train, len(train)), (num_valid, len(valid)))
        fits = all(number is None or 1 <= number <= there for number, there in wanted)
    if not fits:
        raise UserError(
            f"data.num_train = {num_train} and data.num_valid = {num_valid} do not fit the data's own split, "
            f"which has {what}; data.split: random makes another"
        )
    return Split(train[:num_train], valid[:num_valid], test)


def random_split(
    num_molecules: int, num_train: int | None, num_valid: int | None, seed: int, groups: np.ndarray | None = None
) -> Split:
    """Split at random: first `num_train`, then `num_valid`, and the rest for the test.

    The permutation is that of the released DimeNet, `numpy.random.RandomState(seed).permutation(num_molecules)`.
    Counts left out are 80 % and 10 % of the molecules. `groups`, (molecules,) int, are distributed evenly over the
    permutation, so that every part has its share of each.

    Examples
    --------
    >>> random_split(100, num_train=80, num_valid=None, seed=42)
    Split(80 train, 10 valid, 10 test)
    """
    num_train = int(0.8 * num_molecules) if num_train is None else num_train
    num_valid = int(0.1 * num_molecules) if num_valid is None else num_valid
    if num_train < 1 or num_valid < 1 or num_train + num_valid >= num_molecules:
        raise UserError(
            f"data.num_train = {num_train} and data.num_valid = {num_valid} do not fit {num_molecules} molecules: "
            "both must be at least 1, and at least 1 molecule must be left to test on"
        )
    order = np.random.RandomState(seed).permutation(num_molecules)
    if groups is not None:
        order = order[np.argsort(_positions(groups[order]), kind="stable")]
    return Split(order[:num_train], order[num_train : num_train + num_valid], order[num_train + num_valid :])


def _positions(groups: np.ndarray) -> np.ndarray:
    """Return the place of each molecule if all groups are spread evenly from 0 to 1, (molecules,) float."""
    positions = np.empty(len(groups))
    for group in np.unique(groups):
        members = np.flatnonzero(groups == group)
        positions[members] = (np.arange(len(members)) + 0.5) / len(members)
    return positions
