"""Kinds of losses by the names that `training.loss` has for them."""

from __future__ import annotations

from typing import NamedTuple


class LossKind(NamedTuple):
    """How the errors of a molecule are combined to its loss; `Loss` computes it.

    Examples
    --------
    >>> LOSSES["dimenet"].formula, LOSSES["dimenet"].rho
    ('mae + rho * force mae', 100.0)
    """

    formula: str
    """Loss of an energy with forces; `rho` is `training.rho_force`."""
    rho: float
    """Default weight of the forces, from the paper that introduced the loss."""
    squared: bool = False
    """Whether components of errors are squared. Otherwise their absolute values count."""
    mixed: bool = False
    """Whether the energy has the weight 1 - rho. Otherwise its weight is 1."""
    force_lengths: bool = False
    """Whether the lengths of the forces' errors count. Otherwise their components do."""


LOSSES = {
    # DimeNet, Eq. 2
    "dimenet": LossKind("mae + rho * force mae", 100.0),
    # GemNet, Eq. 21
    "gemnet": LossKind("(1 - rho) * mae + rho * mean length of force errors", 0.999, mixed=True, force_lengths=True),
    # PaiNN, Sec. 5.2
    "mse": LossKind("(1 - rho) * mse + rho * force mse", 0.95, squared=True, mixed=True),
}
