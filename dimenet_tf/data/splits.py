"""Which molecules are trained on."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from dimenet_tf.errors import UserError


class Split(NamedTuple):
    """Indices of molecules, each (n,) int64, disjoint."""

    train: np.ndarray
    valid: np.ndarray
    test: np.ndarray

    def save(self, path: str | Path) -> None:
        """Write an npz file."""
        np.savez_compressed(path, **self._asdict())

    @classmethod
    def load(cls, path: str | Path) -> Split:
        """Read what `save` wrote."""
        with np.load(path, allow_pickle=False) as file:
            return cls(file["train"], file["valid"], file["test"])


def random_split(num_molecules: int, num_train: int | None, num_valid: int | None, seed: int) -> Split:
    """Split at random: first `num_train`, then `num_valid`, the rest to test on.

    The permutation is that of the released DimeNet, `numpy.random.RandomState(seed).permutation(num_molecules)`.
    Counts left out are 80 % and 10 % of the molecules.
    """
    num_train = int(0.8 * num_molecules) if num_train is None else num_train
    num_valid = int(0.1 * num_molecules) if num_valid is None else num_valid
    if num_train < 1 or num_valid < 1 or num_train + num_valid >= num_molecules:
        raise UserError(
            f"data.num_train = {num_train} and data.num_valid = {num_valid} do not fit {num_molecules} molecules: "
            "both must be at least 1, and at least 1 molecule must be left to test on"
        )
    order = np.random.RandomState(seed).permutation(num_molecules)
    return Split(order[:num_train], order[num_train : num_train + num_valid], order[num_train + num_valid :])
