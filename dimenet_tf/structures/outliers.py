"""Outlying labels, which would ruin a training run."""

from __future__ import annotations

import numpy as np

from dimenet_tf.structures.flat import FlatMolecules
from dimenet_tf.structures.quantities import Quantity, find_property

LIMIT = 20.0  # median absolute deviations (MADs)
FEWEST = 10  # molecules; with fewer there is no "rest" to be far from
MINORITY = 0.1  # of the molecules; a larger group is a second kind of data, not a few outliers
NORMAL = 0.6745  # MADs of normally distributed numbers in their root mean square
ITERATIONS = 50  # of reweighting at most
CONVERGED = 0.01  # change of the fitted values in one iteration, in typical deviations from them


def find_outliers(data: FlatMolecules, name: str, judged: np.ndarray) -> dict[int, str]:
    """Find molecules with a label more than `LIMIT` MADs from the others.

    Scalars are compared after removing a robust reference: a sum over elements for extensive ones, else the median.
    The residuals of the sum are divided by the square root of the number of atoms, because independent contributions
    of atoms add up to that. The reference of tensors is isotropic; components of vectors and forces are compared with
    zero. If more than `MINORITY` of the molecules have a larger spread, that spread is used, because two kinds of data
    are not outliers of each other. A MAD of zero finds no outliers.

    Parameters
    ----------
    data : FlatMolecules
    name : property of `data`
    judged : (molecules,) bool, molecules to check; those without the label are skipped

    Returns
    -------
    dict from the index of each such molecule to its worst value and the distance in MADs, as a string
    """
    kind = find_property(name)
    has = judged & data.labelled(name)
    if np.count_nonzero(has) < FEWEST:
        return {}
    atoms = np.repeat(has, data.N) & (True if data.fixed is None else ~data.fixed)
    if kind.per_atom:
        labels = data.targets[name][atoms]
        sizes = np.bincount(data.molecule_of_atom[atoms], minlength=len(data))[has]
    else:
        labels, sizes = data.targets[name][has], np.ones(np.count_nonzero(has), int)
    values = labels.reshape(len(labels), -1)
    rest = _rest(data, kind, has, values)
    if rest is None:
        return {}
    distance = np.abs(rest)  # (values, components)
    starts = np.cumsum(sizes) - sizes  # first row of each molecule
    largest = np.maximum.reduceat(distance.max(axis=1), starts)
    mean_square = np.add.reduceat((distance**2).mean(axis=1), starts) / sizes
    widest = np.sqrt(np.quantile(mean_square, 1 - MINORITY, method="lower"))
    mad = float(np.median(distance))
    if mad == 0:
        return {}
    rows = np.flatnonzero(has)
    found = {}
    for m in np.flatnonzero(largest > LIMIT * max(mad, NORMAL * widest)):
        of_molecule = slice(starts[m], starts[m] + sizes[m])
        worst = np.unravel_index(np.argmax(distance[of_molecule]), distance[of_molecule].shape)
        value = f"{values[of_molecule][worst]:.7g} {kind.unit}".strip()
        atom = f" at atom {np.flatnonzero(atoms[data.molecule_of_atom == rows[m]])[worst[0]]}" if kind.per_atom else ""
        found[int(rows[m])] = f"{value}{atom}, {largest[m] / mad:.2g} MADs from the rest"
    return found


def _rest(data: FlatMolecules, kind: Quantity, has: np.ndarray, values: np.ndarray) -> np.ndarray | None:
    """Return the residuals of labels from a robust reference, (molecules, components); None for too few labels."""
    if kind.shape not in ((), (3, 3)):
        return values
    diagonal = slice(None, None, 4 if kind.shape else 1)
    numbers = values[:, diagonal].mean(axis=1)
    root = np.ones(len(values))
    reference = np.zeros(len(values))
    if kind.extensive:
        root = np.sqrt(data.N[has])
        inputs = _composition(data, has) / root[:, None]
        if len(inputs) < FEWEST + 2 * (np.linalg.matrix_rank(inputs) - 1):
            return None
        reference = robust_fit(inputs, numbers / root) * root
    reference += np.median((numbers - reference) / root) * root
    rest = values.copy()
    rest[:, diagonal] -= reference[:, None]
    return rest / root[:, None]


def _composition(data: FlatMolecules, has: np.ndarray) -> np.ndarray:
    """Return the number of atoms of each present element in the given molecules, (molecules, elements)."""
    Z = data.Z[np.repeat(has, data.N)]
    molecule = np.repeat(np.arange(np.count_nonzero(has)), data.N[has])
    present = np.bincount(Z) > 0
    elements = np.count_nonzero(present)
    column = np.cumsum(present) - 1
    return np.bincount(molecule * elements + column[Z], minlength=(molecule[-1] + 1) * elements).reshape(-1, elements)


def robust_fit(inputs: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Fit values linearly by least absolute deviations, so that single outliers have little influence.

    The method is iteratively reweighted least squares.

    Parameters
    ----------
    inputs : (rows, inputs) float
    values : (rows,) float

    Returns
    -------
    (rows,) float, the fitted values
    """
    weights = np.ones(len(values))
    fitted = np.zeros(len(values))
    for _ in range(ITERATIONS):
        weighted = weights[:, None] * inputs
        gram = inputs.T @ weighted
        size = np.sqrt(np.diag(gram))  # columns of equal size: a rare element counts as well
        inverse = np.linalg.pinv(gram / np.outer(size, size), rcond=1e-11, hermitian=True)
        before, fitted = fitted, inputs @ (inverse @ ((weighted.T @ values) / size) / size)
        rest = np.abs(values - fitted)
        typical = np.median(rest)
        if np.abs(fitted - before).max() <= CONVERGED * typical or typical == 0:
            break
        weights = 1 / np.maximum(rest / typical, 1e-3)
    return fitted
