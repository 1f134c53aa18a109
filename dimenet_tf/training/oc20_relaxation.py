"""OC20's IS2RE and IS2RS by relaxation: initial structures are relaxed with a force field, and the results compared.

A model that was trained on S2EF moves the free atoms to a minimum of its own energy. The energy there is its answer to
IS2RE, and the positions are its answer to IS2RS (Chanussot et al., ACS Catal. 11, 6059, 2021, Sec. 3).
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms
from ase.optimize import LBFGS
from tqdm import tqdm

from dimenet_tf.data.oc20 import fixed_atoms, validation_splits
from dimenet_tf.errors import UserError
from dimenet_tf.predictor import Predictor
from dimenet_tf.runs.folder import RunFolder
from dimenet_tf.structures.cells import lattice_inverse
from dimenet_tf.structures.limits import molecules_of
from dimenet_tf.structures.molecules import join_atoms
from dimenet_tf.structures.slabs import Slabs
from dimenet_tf.training.oc20_metrics import energy_metrics, format_rows, heading

AT_ONCE = 256  # structures that move at a time; the next ones start as these come to an end
BATCH = 32  # of them computed at once
THRESHOLDS = np.linspace(0.01, 0.499, 490)  # Angstrom


class Relaxation(NamedTuple):
    """Result of `relax_together`. The relaxed positions are those of the structures that were given."""

    energy: np.ndarray
    """(structures,) float64, eV, at the last positions; NaN for structures that cannot be predicted at all."""
    steps: np.ndarray
    """(structures,) int, steps made."""
    converged: np.ndarray
    """(structures,) bool, whether the largest force on a free atom is small enough."""
    in_domain: np.ndarray
    """(structures,) bool, whether the last positions lie inside of the model's domain; True where it is unknown."""
    refused: dict[int, str]
    """Structures whose relaxation ended because the next one cannot be predicted, with the reason."""


def relax_together(
    predictor: Predictor,
    structures: Sequence[Atoms],
    fmax: float,
    steps: int,
    progress: Callable[[int], object] = lambda finished: None,
) -> Relaxation:
    """Relax structures in place, each by ASE's L-BFGS, with energies and forces computed in batches.

    Constraints of the structures are kept. A structure that moves to where it cannot be predicted, for instance because
    two atoms meet, stays at its last positions.

    Parameters
    ----------
    predictor : trained with forces
    structures : are moved
    fmax : eV/Angstrom; a structure has converged when the force on each of its free atoms is smaller
    steps : largest number of steps of a structure
    progress : called with the number of structures that have come to an end since the last call

    Raises
    ------
    UserError
        For a predictor without forces.

    Examples
    --------
    >>> from ase.build import molecule
    >>> import dimenet_tf
    >>> from dimenet_tf.training.oc20_relaxation import relax_together
    >>> predictor = dimenet_tf.load("dimenet_pp-ethanol_xtb-forces")
    >>> relax_together(predictor, [molecule("CH3CH2OH")], fmax=0.1, steps=50).converged
    array([ True])
    """
    if predictor.energy is None:
        raise UserError(
            f"a relaxation needs forces, but the model predicts {', '.join(predictor.head.targets)} without: train it "
            "with data.target=energy,forces"
        )
    count = len(structures)
    energy, made = np.full(count, np.nan), np.zeros(count, int)
    converged, in_domain = np.zeros(count, bool), np.ones(count, bool)
    refused: dict[int, str] = {}
    optimizers: dict[int, LBFGS] = {}
    before: dict[int, np.ndarray] = {}
    moving: list[int] = []
    waiting = iter(range(count))
    while moving := [*moving, *itertools.islice(waiting, AT_ONCE - len(moving))]:
        molecules = join_atoms([structures[i] for i in moving])
        faults, _ = predictor.admission.faults(molecules)
        for place, reason in faults.items():
            i = moving[place]
            refused[i] = reason
            if i in before:  # back to where it could be predicted
                structures[i].positions = before[i]
                made[i] -= 1
        good = [place for place in range(len(moving)) if place not in faults]
        prediction = predictor.predict_admitted(molecules.select(good), BATCH)
        energies = predictor.named(prediction)[predictor.energy]
        ended = set(moving)
        for place, atoms in enumerate(molecules_of(molecules.N[good])):
            i = moving[good[place]]
            forces = prediction.forces[atoms].astype(np.float64)
            structures[i].calc = SinglePointCalculator(structures[i], energy=energies[place], forces=forces)
            energy[i], before[i] = energies[place], structures[i].positions.copy()
            if predictor.domain is not None:
                in_domain[i] = prediction.in_domain[place]
            converged[i] = (np.linalg.norm(structures[i].get_forces(), axis=1) < fmax).all()
            if not converged[i] and made[i] < steps:
                if i not in optimizers:
                    optimizers[i] = LBFGS(structures[i], logfile=None)
                optimizers[i].step()
                made[i] += 1
                ended.remove(i)
        moving = [i for i in moving if i not in ended]
        for i in ended:
            optimizers.pop(i, None)  # their memory is larger than the structure
            before.pop(i, None)
        progress(len(ended))
    return Relaxation(energy, made, converged, in_domain, refused)


def mean_distances(
    R: np.ndarray, reference: np.ndarray, N: np.ndarray, free: np.ndarray, cell: np.ndarray, pbc: np.ndarray
) -> np.ndarray:
    """Return the mean distance of each structure's free atoms from their reference positions, (structures,) float64.

    An atom that has left the cell is compared with the image of its reference position that is closest in lattice
    coordinates. Structures without free atoms have a mean distance of 0.

    Parameters
    ----------
    R, reference : (atoms, 3), Angstrom
    N : (structures,) int, atoms of each structure
    free : (atoms,) bool
    cell, pbc : (structures, 3, 3), (structures, 3)

    Examples
    --------
    An atom at 0.1 Angstrom and one at 3.9 Angstrom in a cell of 4 Angstrom are 0.2 Angstrom apart:

    >>> cell, pbc = 4.0 * np.eye(3)[None], np.ones((1, 3), bool)
    >>> R, reference = np.array([[0.1, 0.0, 0.0]]), np.array([[3.9, 0.0, 0.0]])
    >>> mean_distances(R, reference, np.array([1]), np.array([True]), cell, pbc).round(6)
    array([0.2])
    """
    owner = np.repeat(np.arange(len(N)), N)
    moved = R.astype(np.float64) - reference
    cell = cell.astype(np.float64)
    images = np.einsum("ai,aij->aj", moved, lattice_inverse(cell, pbc)[owner]).round()
    moved -= np.einsum("ai,aij->aj", images, cell[owner])
    distances = np.where(free, np.linalg.norm(moved, axis=1), 0.0)
    return np.bincount(owner, distances, len(N)) / np.maximum(np.bincount(owner, free, len(N)), 1)


def average_distance_within_threshold(distances: np.ndarray) -> float:
    """Return ADwT: the share of structures within a threshold of their reference, averaged over thresholds.

    The thresholds are 0.01, 0.011, ..., 0.499 Angstrom, and a structure must be below. This is
    `average_distance_within_threshold` of the Open Catalyst Project's evaluator (ocpmodels, now fairchem-core); the
    paper gives the range as 0.01 to 0.5 Angstrom (Chanussot et al., ACS Catal. 11, 6059, 2021, Sec. 4).

    Parameters
    ----------
    distances : (structures,), from `mean_distances`; NaN is beyond all thresholds

    Examples
    --------
    >>> average_distance_within_threshold(np.array([0.0, 0.2545, 2.0])).__round__(4)
    0.5
    """
    return float((distances[:, None] < THRESHOLDS).mean())


def evaluate_relaxations(
    predictor: Predictor,
    folder: str | Path,
    fmax: float,
    steps: int,
    structures: int | None = None,
    show_progress: bool | None = None,
) -> dict[str, dict[str, float]]:
    """Relax the initial structures of each validation split of IS2RE, and compare energies and positions.

    Parameters
    ----------
    predictor : trained with forces
    folder : of IS2RE; see `dimenet_tf.data.oc20.is2re`
    fmax, steps : see `relax_together`
    structures : largest number of structures of a split, the first ones; None for all
    show_progress : None for a bar in a terminal alone

    Returns
    -------
    dict from the name of a split's folder to
        `energy_mae`, `ewt`: see `energy_metrics`; `energy_mae_inside`: of structures that end inside of the model's
        domain, NaN if there are none; `adwt`, `adwt_initial`: see `average_distance_within_threshold`, of
        the relaxed and of the initial positions; `mean_distance`: Angstrom; `steps`: mean; `structures`, and how many
        of them are `not_converged`, ended `outside` of the model's domain, are `refused` (their relaxation ended where
        the model cannot predict), or `unpredicted` (it cannot predict the initial positions). All structures count,
        but unpredicted ones have neither an energy error nor a distance, and are beyond all thresholds
    """
    found = {}
    for split, slabs in validation_splits(folder).items():
        count = min(len(slabs.N), structures or len(slabs.N))
        hidden = None if show_progress is None else not show_progress
        with tqdm(desc=split, total=count, unit="structure", disable=hidden, dynamic_ncols=True) as bar:
            found[split] = _evaluate(predictor, slabs, count, fmax, steps, bar.update)
    return found


def _evaluate(
    predictor: Predictor, slabs: Slabs, count: int, fmax: float, steps: int, progress: Callable[[int], object]
) -> dict[str, float]:
    if slabs.R_relaxed is None or slabs.energy_relaxed is None:
        raise UserError(f"{slabs.source} has no y_relaxed and pos_relaxed, which relaxations are compared with")
    N, cell, pbc = slabs.N[:count], slabs.cell[:count], slabs.pbc[:count]
    atoms = slice(0, N.sum())
    initial, reference, fixed = slabs.R[atoms], slabs.R_relaxed[atoms], fixed_atoms(slabs)[atoms]
    frames = [
        Atoms(slabs.Z[of], initial[of], cell=cell[i], pbc=pbc[i], constraint=FixAtoms(mask=fixed[of]))
        for i, of in enumerate(molecules_of(N))
    ]
    result = relax_together(predictor, frames, fmax, steps, progress)
    relaxed = np.concatenate([atoms.positions for atoms in frames])
    predicted = np.isfinite(result.energy)
    distances = np.where(predicted, mean_distances(relaxed, reference, N, ~fixed, cell, pbc), np.inf)
    errors = np.where(predicted, result.energy - slabs.energy_relaxed[:count], np.inf)
    inside = predicted & result.in_domain
    return {
        "structures": count,
        "energy_mae": _mean(np.abs(errors[predicted])),
        "energy_mae_inside": _mean(np.abs(errors[inside])),
        "ewt": energy_metrics(errors)["ewt"],
        "adwt": average_distance_within_threshold(distances),
        "adwt_initial": average_distance_within_threshold(mean_distances(initial, reference, N, ~fixed, cell, pbc)),
        "mean_distance": _mean(distances[predicted]),
        "not_converged": int((~result.converged).sum()),
        "outside": int((~result.in_domain).sum()),
        "refused": len(result.refused),
        "unpredicted": int((~predicted).sum()),
        "steps": float(result.steps.mean()),
    }


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else float("nan")


def format_relaxations(splits: dict[str, dict[str, float]], fmax: float, steps: int) -> str:
    """Return the results of `evaluate_relaxations` as text, with the numbers of relaxations that went wrong."""
    rows = [heading(splits)]
    for title, name, digits, factor in (
        ("energy MAE / eV", "energy_mae", ".4f", 1),
        ("  inside of the model's domain", "energy_mae_inside", ".4f", 1),
        ("EwT / %", "ewt", ".2f", 100),
        ("ADwT / %", "adwt", ".2f", 100),
        ("  of the initial positions", "adwt_initial", ".2f", 100),
        ("mean distance / Ang", "mean_distance", ".3f", 1),
        ("steps, mean", "steps", ".1f", 1),
    ):
        rows.append([title, *(f"{factor * found[name]:{digits}}" for found in splits.values())])
    counts = {
        f"not converged to {fmax:g} eV/Ang in {steps} steps": "not_converged",
        "outside of the model's domain at the end": "outside",
        "stopped where the model cannot predict": "refused",
        "without any prediction": "unpredicted",
    }
    for title, name in counts.items():
        rows.append([title, *(str(found[name]) for found in splits.values())])
    return format_rows(rows)


def relaxation_report(
    predictor: Predictor, folder: str | Path, run: RunFolder, fmax: float, steps: int, structures: int | None = None
) -> str:
    """Relax and compare; see `evaluate_relaxations`. Write relaxations.json into a run's folder and return the table.

    Raises
    ------
    UserError
        For a predictor without forces, folders without validation splits, splits without relaxed positions, and limits
        below 1 or of 0.
    """
    if not fmax > 0 or steps < 1 or (structures is not None and structures < 1):
        raise UserError(
            f"fmax = {fmax}, max_steps = {steps}, structures = {structures}: expected a force above 0 and numbers of "
            "at least 1"
        )
    splits = evaluate_relaxations(predictor, folder, fmax, steps, structures)
    path = run.path / "relaxations.json"
    found = {
        split: {name: value if np.isfinite(value) else None for name, value in metrics.items()}  # JSON has no NaN
        for split, metrics in splits.items()
    }
    path.write_text(json.dumps({"data": str(folder), "fmax": fmax, "max_steps": steps, "splits": found}, indent=1))
    return f"{format_relaxations(splits, fmax, steps)}\nJSON: {path}"
