"""Predicted properties of a batch of molecules."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Union

import numpy as np
import tensorflow as tf

Array = Union[np.ndarray, tf.Tensor]


class Prediction(NamedTuple):
    """Predicted properties of a batch of molecules.

    Examples
    --------
    >>> shares = np.array([[-1.0], [-2.0], [-0.5]])  # of three atoms in two molecules
    >>> Prediction(values=np.array([[-3.0], [-0.5]]), shares=shares, forces=np.zeros((0, 3))).values.ravel()
    array([-3. , -0.5])
    """

    values: Array
    """(molecules, columns) float64, in the properties' units. `Columns` has the layout; `Predictor.named` splits it."""
    shares: Array
    """(atoms, columns) float64, the share of each atom; the sums over atoms are `values`."""
    forces: Array
    """(atoms, 3), eV/Angstrom; no rows for a predictor without forces."""
    stress: Array | tuple = ()
    """(molecules, 3, 3), eV/Angstrom^3, symmetric, positive under tension (ASE's sign); NaN where there is no volume;
    () for a batch without cells, and for direct forces, which are no gradient of an energy."""
    in_domain: Array | tuple = ()
    """(molecules,) bool, see `Domain`; () in training and for a predictor that does not record its domain."""
    neighbors_dropped: Array | tuple = ()
    """(molecules,) int32, pairs within the cutoff that `max_neighbors` left out; () for a model without a limit."""


def join_predictions(parts: Sequence[Prediction]) -> Prediction:
    """Concatenate the predictions of at least one batch into NumPy arrays.

    Examples
    --------
    >>> part = Prediction(values=np.array([[-3.0]]), shares=np.array([[-1.0], [-2.0]]), forces=np.zeros((0, 3)))
    >>> join_predictions([part, part]).values.ravel()
    array([-3., -3.])
    """
    *columns, stresses, insides, drops = zip(*parts)
    values, shares, forces = (np.concatenate([np.asarray(array) for array in arrays]) for arrays in columns)
    in_domain, dropped = (
        () if isinstance(arrays[0], tuple) else np.concatenate([np.asarray(array) for array in arrays])
        for arrays in (insides, drops)
    )
    stress: np.ndarray | tuple = ()
    if any(not isinstance(part, tuple) for part in stresses):  # molecules have none
        none = [np.full((len(part.values), 3, 3), np.nan, forces.dtype) for part in parts]
        stress = np.concatenate([n if isinstance(s, tuple) else np.asarray(s) for n, s in zip(none, stresses)])
    return Prediction(values, shares, forces, stress, in_domain, dropped)
