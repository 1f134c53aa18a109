"""Predicted properties of a batch of molecules."""

from __future__ import annotations

from typing import NamedTuple, Union

import numpy as np
import tensorflow as tf

Array = Union[np.ndarray, tf.Tensor]


class Prediction(NamedTuple):
    """What a predictor says about a batch of molecules."""

    values: Array
    """(molecules, columns) float64, in the targets' units: see `Columns`, `Predictor.named` splits them."""
    shares: Array
    """(atoms, columns) float64: what each atom contributes to them; their sums are `values`."""
    forces: Array
    """(atoms, 3), eV/Angstrom; no rows where the predictor has no forces."""
    in_domain: Array | tuple = ()
    """(molecules,) bool, see `Domain`; () in training and for a predictor that does not record its domain."""
