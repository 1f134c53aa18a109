"""Stress labels: Voigt vectors, virials, and the checks before a model is trained on them.

The stress is positive under tension, as ASE has it: a compressed crystal, which pushes outward, has a negative one. The
virial is minus the derivative of the energy by the strain, so stress = -virial / volume.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from dimenet_tf.errors import UserError
from dimenet_tf.structures.cells import Cells
from dimenet_tf.structures.quantities import PROPERTIES, conversion

FULL = [[0, 5, 4], [5, 1, 3], [4, 3, 2]]
"""Places of a tensor's components in a Voigt vector of ASE: xx yy zz yz xz xy."""
MAX_DISAGREEMENT = 1e-3  # of a stress and a virial, relative to the largest component
MAX_ASYMMETRY = 1e-2  # relative to the largest component
LARGEST = 2.0
"""A larger median of absolute components in eV/Ang^3 (320 GPa) is a matter of units."""


def may_be_voigt(name: str) -> bool:
    """Tell whether six components of a quantity are a Voigt vector."""
    return name in PROPERTIES and PROPERTIES[name].voigt


def as_tensors(values: np.ndarray) -> np.ndarray:
    """Return tensors (..., 3, 3) of lists of six numbers in ASE's order (xx yy zz yz xz xy) or nine; others as given.

    Examples
    --------
    >>> import numpy as np
    >>> as_tensors(np.arange(1, 7)).tolist()
    [[1, 6, 5], [6, 2, 4], [5, 4, 3]]
    """
    if values.ndim not in (1, 2) or values.shape[-1] not in (6, 9):
        return values
    return values[..., FULL] if values.shape[-1] == 6 else values.reshape(*values.shape[:-1], 3, 3)


def volumes(cells: Cells | None, structures: int) -> np.ndarray:
    """Return the volume of each cell, (structures,), Angstrom^3; NaN without one.

    Examples
    --------
    >>> import numpy as np
    >>> from dimenet_tf.structures.cells import make_cells
    >>> volumes(make_cells(np.eye(3) * 2, [True, True, False], 1), 1), volumes(None, 1)
    (array([nan]), array([nan]))
    """
    if cells is None:
        return np.full(structures, np.nan)
    return np.where(cells.pbc.all(axis=1), np.abs(np.linalg.det(cells.cell)), np.nan)


def with_stress(
    targets: Mapping[str, np.ndarray], cells: Cells | None, structures: int, source: str
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Replace virials by stresses, and drop stresses of structures without a volume.

    Parameters
    ----------
    targets : arrays by name, in the library's units; those without "stress" and "virial" are returned as they are
    cells : of the structures
    structures : their number
    source : named in errors

    Returns
    -------
    targets, notes

    Raises
    ------
    UserError
        For a stress and a virial of one structure that do not agree.

    Examples
    --------
    >>> import numpy as np
    >>> from dimenet_tf.structures.cells import make_cells
    >>> cells = make_cells(np.eye(3) * 2, None, 1)
    >>> found, notes = with_stress({"virial": -4 * np.eye(3)[None]}, cells, 1, "my.xyz")
    >>> found["stress"][0, 0, 0].round(6), notes
    (0.5, ['my.xyz: stresses are those of its virials: -virial / volume'])
    """
    targets = dict(targets)
    expected = (structures, 3, 3)
    if not any(name in targets for name in ("stress", "virial")):
        return targets, []
    volume = volumes(cells, structures)[:, None, None]
    notes = []
    virial = targets.pop("virial", None)
    if virial is not None and virial.shape == expected:  # `DataContainer` refuses others by their shape
        of_virial = -virial / volume
        stress = targets.get("stress")
        if stress is None:
            targets["stress"] = of_virial
            notes.append(f"{source}: stresses are those of its virials: -virial / volume")
        elif stress.shape == expected:
            error = np.abs(stress - of_virial).max(axis=(1, 2))
            size = np.maximum(np.abs(stress), np.abs(of_virial)).max(axis=(1, 2))
            bad = error > MAX_DISAGREEMENT * size + 1e-9  # not where one of them is NaN
            if bad.any():
                first = int(np.argmax(bad))
                raise UserError(
                    f"{source}: the stress of molecule {first} is not -virial / volume (xx: {stress[first, 0, 0]:.4g} "
                    f"and {of_virial[first, 0, 0]:.4g} eV/Ang^3), {int(bad.sum())} such molecules: set "
                    "data.units.stress or data.units.virial, or data.keys.stress to the one that is right. A stress is "
                    "positive under tension, a virial negative"
                )
            targets["stress"] = np.where(np.isnan(stress), of_virial, stress)
    elif virial is not None:
        targets["virial"] = virial
    stress = targets.get("stress")
    if stress is not None and stress.shape == expected:
        targets["stress"] = np.where(np.isnan(volume), np.nan, stress)
        if not np.isfinite(targets["stress"]).any():  # molecules, or virials that are no numbers
            del targets["stress"]
    return targets, notes


def check_stress(stress: np.ndarray, source: str, unit_is_known: bool) -> None:
    """Raise a UserError unless stress labels are symmetric and of a possible size.

    Parameters
    ----------
    stress : (structures, 3, 3), eV/Angstrom^3; NaN where missing
    source : named in errors
    unit_is_known : whether the user has named the unit, so that large values are meant

    Examples
    --------
    >>> import numpy as np
    >>> check_stress(-np.eye(3)[None] * 0.01, "my.xyz", False)
    """
    labelled = np.flatnonzero(np.isfinite(stress).all(axis=(1, 2)))
    if not len(labelled):
        return
    present = stress[labelled]
    skew = np.abs(present - present.transpose(0, 2, 1)).max(axis=(1, 2))
    bad = skew > MAX_ASYMMETRY * np.abs(present).max(axis=(1, 2)) + 1e-9
    if bad.any():
        first = int(np.argmax(bad))
        raise UserError(
            f"{source}: 'stress' of molecule {labelled[first]} is not symmetric, {int(bad.sum())} such molecules; "
            "expected (3, 3), or six numbers in ASE's order xx yy zz yz xz xy"
        )
    typical = float(np.median(np.abs(present).max(axis=(1, 2))))
    if typical > LARGEST and not unit_is_known:
        in_gpa = typical / conversion("stress", "GPa")
        raise UserError(
            f"{source}: half of the stresses have components above {typical:.3g} eV/Ang^3 ({in_gpa:.3g} GPa): is their "
            "unit kbar or GPa? Set data.units.stress=kbar or data.units.stress=GPa (eV/Ang^3 if that is meant)"
        )
