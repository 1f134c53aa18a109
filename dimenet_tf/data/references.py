"""What is taken off the targets before training and added back to every prediction."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from dimenet_tf.data.container import DataContainer
from dimenet_tf.data.properties import Property
from dimenet_tf.elements import MAX_Z, atomic_number, symbols
from dimenet_tf.errors import UserError

REFERENCES = ("auto", "fit", "mean", "none")


class Reference(NamedTuple):
    """property = offset + sum over atoms of `per_element[Z]` + scale * what the network says.

    The first two are numbers: of a tensor they stand on its diagonal.
    """

    per_element: np.ndarray
    """(95,) float64, in the property's unit; 0 for elements without one."""
    offset: float
    scale: float

    def baseline(self, composition: np.ndarray, shape: tuple[int, ...] = ()) -> np.ndarray:
        """Return what is predicted without a network; (molecules, 95) counts -> (molecules, *shape)."""
        numbers = self.offset + composition @ self.per_element
        if shape == (3,):
            return np.zeros((len(numbers), 3))  # no other vector is the same in all directions
        return numbers[:, None, None] * np.eye(3) if shape else numbers


def fit_reference(
    data: DataContainer,
    name: str,
    kind: Property,
    train: np.ndarray,
    references="auto",
    standardize: bool = True,
    additive: bool = True,
) -> Reference:
    """Make the reference of one property from the training molecules that have a value of it.

    Parameters
    ----------
    references : what is taken off
        "fit": one value per element, by least squares on the composition; "mean": the mean;
        "auto": "fit" for extensive properties, "mean" for others; "none": nothing;
        a mapping from element symbols to values in the property's unit. Of tensors it is a third of the trace that is
        fitted, of vectors there is nothing.
    standardize : divide what is left by its standard deviation; by the root mean square of the components where it is a
        vector or a tensor
    additive : False for nothing to take off, whatever `references` says: its head adds nothing
    """
    train = np.asarray(train)[data.labelled(name)[train]]
    labels = data.labels(name)[train]
    values = np.trace(labels, axis1=1, axis2=2) / 3 if kind.shape == (3, 3) else labels
    composition = data.composition()[train]
    per_element, offset = np.zeros(MAX_Z + 1), 0.0
    if not isinstance(references, Mapping) and references not in REFERENCES:
        raise UserError(
            f"data.references: '{references}' is none of {', '.join(REFERENCES)} or a mapping {{symbol: value}}"
        )
    if not additive or kind.shape == (3,):
        references = "none"
    if references == "auto":
        references = "fit" if kind.extensive else "mean"
    if isinstance(references, Mapping):
        given = {atomic_number(str(symbol), "data.references"): value for symbol, value in references.items()}
        if not all(isinstance(value, (int, float)) for value in given.values()):
            raise UserError(f"data.references = {dict(references)}: the values must be numbers")
        lacking = sorted(set(data.elements) - set(given))
        if lacking:
            raise UserError(f"data.references has no value for {symbols(lacking)}, which the data contain")
        per_element[list(given)] = list(given.values())
    elif references == "fit":
        present = np.flatnonzero(composition.any(axis=0))
        per_element[present] = np.linalg.lstsq(composition[:, present].astype(float), values, rcond=None)[0]
    elif references == "mean":
        offset = float(values.mean())
    rest = labels - Reference(per_element, offset, 1.0).baseline(composition, kind.shape)
    spread = float(np.sqrt((rest**2).mean()) if kind.shape else rest.std())
    return Reference(per_element, offset, spread if standardize and spread > 0 else 1.0)
