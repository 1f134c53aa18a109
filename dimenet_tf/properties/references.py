"""Reference values: subtracted from labels before training and added to every prediction."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from dimenet_tf.errors import UserError, check_choice
from dimenet_tf.structures.container import DataContainer
from dimenet_tf.structures.elements import MAX_Z, SYMBOLS, atomic_number, symbols
from dimenet_tf.structures.quantities import Quantity

REFERENCES = ("auto", "fit", "isolated_atoms", "mean", "none")
# largest plausible rms of what references leave, eV per atom; energies in another unit leave more
MOST_BY_FIT, MOST_BY_ATOMS = 5.0, 15.0


class Reference(NamedTuple):
    """Reference values and scale of a property: offset + sum over atoms of per_element[Z] + scale * model output.

    `per_element` and `offset` are numbers. For a tensor they are the values on the diagonal.

    Examples
    --------
    >>> water = np.zeros((1, 95))
    >>> water[0, [1, 8]] = 2, 1
    >>> per_element = np.zeros(95)
    >>> per_element[[1, 8]] = -13.6, -2043.0
    >>> Reference(per_element, 0.0, 1.0).baseline(water)
    array([-2070.2])
    """

    per_element: np.ndarray
    """(95,) float64, in the property's unit; 0 for elements without a reference value."""
    offset: float
    scale: float

    def baseline(self, composition: np.ndarray, shape: tuple[int, ...] = ()) -> np.ndarray:
        """Return the prediction without a model, (molecules, *shape).

        Parameters
        ----------
        composition : (molecules, 95), number of atoms of each element
        shape : of one molecule's value. Vectors are predicted as zero, because no other vector is isotropic.
        """
        numbers = self.offset + composition @ self.per_element
        if shape == (3,):
            return np.zeros((len(numbers), 3))
        return numbers[:, None, None] * np.eye(3) if shape else numbers


NO_REFERENCE = Reference(np.zeros(MAX_Z + 1), 0.0, 1.0)
"""Adds nothing and scales by 1."""


def fit_reference(
    data: DataContainer,
    name: str,
    kind: Quantity,
    train: np.ndarray,
    references: str | Mapping[str, float] = "auto",
    standardize: bool = True,
    additive: bool = True,
) -> Reference:
    """Fit reference values and scale of a property to the labelled training molecules.

    For tensors, a third of the trace is fitted. Vectors have no reference values.

    Parameters
    ----------
    data : labels
    name, kind : of the property
    train : (n,) int, the training molecules
    references : which values are subtracted
        "fit": one value per element, by least squares on the composition; "mean": the mean;
        "isolated_atoms": the values of the data's single atoms, or as "auto" for properties without such values;
        "auto": "fit" for extensive properties, "mean" for others; "none": nothing;
        a mapping from element symbols to values in the property's unit
    standardize : whether `scale` is the standard deviation of what remains (for vectors and tensors the root mean
        square of the components). Otherwise it is 1.
    additive : whether the head adds reference values. If not, `references` has no effect.

    Raises
    ------
    UserError
        For an unknown choice of references, and elements without a value.
    """
    train = np.asarray(train)[data.labelled(name)[train]]
    labels = data.labels(name)[train]
    values = np.trace(labels, axis1=1, axis2=2) / 3 if kind.shape == (3, 3) else labels
    composition = data.composition()[train]
    per_element, offset = np.zeros(MAX_Z + 1), 0.0
    if not isinstance(references, Mapping):
        check_choice("data.references", references, REFERENCES, " or a mapping {symbol: value}")
    if not additive or kind.shape == (3,):
        references = "none"
    if references == "isolated_atoms" and kind.extensive and kind.shape == ():
        references = _isolated(data, name)
    if references in ("auto", "isolated_atoms"):
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


def _isolated(data: DataContainer, name: str) -> dict[str, float]:
    """Return the labels of single atoms by element symbol."""
    values = data.isolated.get(name, {})
    if not values:
        raise UserError(
            f"data.references=isolated_atoms: {data.source} has no single atoms with a value of '{name}'; add them, or "
            "give the values by data.references={symbol: value}"
        )
    lacking = sorted(set(data.elements) - set(values))
    if lacking:
        raise UserError(
            f"data.references=isolated_atoms: {data.source} has no single atom of {symbols(lacking)} with a value of "
            f"'{name}'; it has those of {symbols(sorted(values))}"
        )
    return {SYMBOLS[z]: value for z, value in values.items()}


def check_energies(
    data: DataContainer,
    name: str,
    kind: Quantity,
    train: np.ndarray,
    references: str | Mapping[str, float],
    fit: Reference,
) -> None:
    """Raise a UserError if the method or the unit of reference energies seems to differ from that of the labels.

    Checks scalar properties in eV that have reference values for elements, unless these are all zero.

    Parameters
    ----------
    data, name, kind, train, references : as in `fit_reference`
    fit : result of `fit_reference`
    """
    if kind.unit != "eV" or kind.shape or not fit.per_element.any():
        return
    train = np.asarray(train)[data.labelled(name)[train]]
    labels, N = data.labels(name)[train], data.N[train]
    rest = labels - Reference(fit.per_element, fit.offset, 1.0).baseline(data.composition()[train])

    def rms(values: np.ndarray) -> float:
        return float(np.sqrt((values**2).mean()))

    per_atom = rms(rest / N)
    if isinstance(references, str) and references != "isolated_atoms":
        if per_atom > MOST_BY_FIT:
            raise UserError(
                f"{data.source}: the least-squares reference energies leave {per_atom:.3g} eV per atom of '{name}' "
                f"(rms; at most {MOST_BY_FIT:g} is plausible): check the labels and their unit (data.units.{name})"
            )
        return
    source = "data.references=isolated_atoms" if isinstance(references, str) else f"data.references={dict(references)}"
    if rms(rest) > rms(labels):
        raise UserError(
            f"{source}: subtracting these reference energies makes '{name}' of {data.source} larger, not smaller "
            f"(rms {rms(rest):.4g} instead of {rms(labels):.4g} eV): the labels seem to be atomization or formation "
            "energies already; set data.references=fit or none"
        )
    if per_atom > MOST_BY_ATOMS:
        raise UserError(
            f"{source}: these reference energies leave {per_atom:.3g} eV per atom of '{name}' of {data.source} (rms; "
            f"at most {MOST_BY_ATOMS:g} is plausible): are they in eV, and from the same method as the labels?"
        )
