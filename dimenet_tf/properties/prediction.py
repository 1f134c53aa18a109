"""Predicted properties of a batch of molecules."""

from __future__ import annotations

from typing import NamedTuple, Union

import numpy as np
import tensorflow as tf

Array = Union[np.ndarray, tf.Tensor]


class Prediction(NamedTuple):
    """Predicted properties of a batch of molecules."""

    values: Array
    """(molecules, columns) float64, in the properties' units. `Columns` has the layout; `Predictor.named` splits it."""
    shares: Array
    """(atoms, columns) float64, the share of each atom; the sums over atoms are `values`."""
    forces: Array
    """(atoms, 3), eV/Angstrom; no rows for a predictor without forces."""
    in_domain: Array | tuple = ()
    """(molecules,) bool, see `Domain`; () in training and for a predictor that does not record its domain."""
