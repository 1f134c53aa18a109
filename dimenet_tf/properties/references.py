"""What is taken off the targets before training and added back to every prediction."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from dimenet_tf.errors import UserError, check_choice
from dimenet_tf.structures.container import DataContainer
from dimenet_tf.structures.elements import MAX_Z, SYMBOLS, atomic_number, symbols
from dimenet_tf.structures.quantities import Property

REFERENCES = ("auto", "fit", "isolated_atoms", "mean", "none")
MOST_BY_FIT, MOST_BY_ATOMS = 5.0, 15.0  # eV per atom; energies of molecules leave less, those in another unit more


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
    references: str | Mapping[str, float] = "auto",
    standardize: bool = True,
    additive: bool = True,
) -> Reference:
    """Make the reference of one property from the training molecules that have a value of it.

    Parameters
    ----------
    references : what is taken off
        "fit": one value per element, by least squares on the composition; "mean": the mean;
        "isolated_atoms": the values of the data's single atoms, for properties without them as "auto";
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
    """Return the values of single atoms by element symbol."""
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
    kind: Property,
    train: np.ndarray,
    references: str | Mapping[str, float],
    fit: Reference,
) -> None:
    """Raise a UserError if reference energies are of another kind, or in another unit, than the energies of molecules.

    Only scalar properties in eV with reference values for elements are looked at; reference values that are all zero
    are as if there were none.

    Parameters
    ----------
    data, name, kind, train, references : as given to `fit_reference`
    fit : what it returned
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
