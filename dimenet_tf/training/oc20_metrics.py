"""Errors of OC20's tasks IS2RE and S2EF on its validation splits, as the papers report them.

Definitions are those of Chanussot et al. (ACS Catal. 11, 6059, 2021, Sec. 4). Forces of fixed atoms are NaN and not
counted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from dimenet_tf.data.dataset import Dataset
from dimenet_tf.data.oc20 import NAMES, VALIDATION, split_of
from dimenet_tf.predictor import Predictor

ENERGY_THRESHOLD = 0.02  # eV
FORCE_THRESHOLD = 0.03  # eV/Angstrom
CHUNK = 1000  # structures whose graphs are in memory at once
# IS2RE, training set of 10k structures: energy MAE in eV and EwT in % on the four splits; SphereNet, Table 2
PUBLISHED = {
    "CGCNN": ((1.0479, 1.0527, 1.0232, 0.9608), (1.39, 1.38, 1.59, 1.57)),
    "SchNet": ((1.0858, 1.1044, 1.0720, 1.0391), (1.34, 1.39, 1.42, 1.44)),
    "DimeNet": ((1.0117, 1.0734, 0.9814, 0.9767), (1.45, 1.41, 1.53, 1.41)),
    "DimeNet++": ((0.8819, 0.9106, 0.8357, 0.8408), (1.94, 1.69, 2.13, 1.84)),
    "SphereNet": ((0.8352, 0.8723, 0.7959, 0.7952), (1.96, 2.02, 2.19, 1.90)),
}
COLUMNS = {  # unit and digits by metric
    "energy_mae": ("energy MAE / eV", ".4f", 1),
    "ewt": ("EwT / %", ".2f", 100),
    "force_mae": ("force MAE / eV/Ang", ".4f", 1),
    "force_cosine": ("force cosine", ".4f", 1),
    "efwt": ("EFwT / %", ".2f", 100),
}


def energy_metrics(errors: np.ndarray) -> dict[str, float]:
    """Return the MAE of energies and EwT, the share of energies within 0.02 eV.

    Parameters
    ----------
    errors : (structures,), prediction minus label, eV

    Examples
    --------
    >>> energy_metrics(np.array([0.01, -0.5, 0.019, 0.3]))
    {'energy_mae': 0.20725, 'ewt': 0.5}
    """
    absolute = np.abs(errors)
    return {"energy_mae": float(absolute.mean()), "ewt": float((absolute < ENERGY_THRESHOLD).mean())}


def force_metrics(
    energy_errors: np.ndarray, forces: np.ndarray, labels: np.ndarray, structure_of_atom: np.ndarray
) -> dict[str, float]:
    """Return the metrics of S2EF that need forces, over the atoms that have them.

    Parameters
    ----------
    energy_errors : (structures,), prediction minus label, eV
    forces, labels : (atoms, 3), eV/Angstrom; labels are NaN for fixed atoms
    structure_of_atom : (atoms,) int

    Returns
    -------
    dict
        `force_mae`: mean over components; `force_cosine`: mean over atoms of the cosine between predicted and true
        force, 0 where one of them is zero; `efwt`: share of structures with an energy within 0.02 eV and all
        components of forces within 0.03 eV/Angstrom

    Examples
    --------
    >>> labels = np.array([[0.0, 0.0, 1.0], [np.nan, np.nan, np.nan], [0.0, 2.0, 0.0]])
    >>> forces = np.array([[0.0, 0.0, 1.01], [9.0, 9.0, 9.0], [0.0, -1.0, 0.0]])
    >>> found = force_metrics(np.array([0.01, 0.01]), forces, labels, np.array([0, 0, 1]))
    >>> {name: round(value, 4) for name, value in found.items()}
    {'force_mae': 0.5017, 'force_cosine': 0.0, 'efwt': 0.5}
    """
    free = np.isfinite(labels).all(axis=1)
    predicted, true = forces[free].astype(np.float64), labels[free]
    errors = np.abs(predicted - true)
    lengths = np.linalg.norm(predicted, axis=1) * np.linalg.norm(true, axis=1)
    cosine = np.divide((predicted * true).sum(axis=1), lengths, out=np.zeros_like(lengths), where=lengths > 0)
    largest = np.zeros(len(energy_errors))
    np.maximum.at(largest, structure_of_atom[free], errors.max(axis=1))
    within = (np.abs(energy_errors) < ENERGY_THRESHOLD) & (largest < FORCE_THRESHOLD)
    return {
        "force_mae": float(errors.mean()),
        "force_cosine": float(cosine.mean()),
        "efwt": float(within.mean()),
    }


def evaluate_splits(predictor: Predictor, dataset: Dataset) -> dict[str, dict[str, float]]:
    """Compute the metrics of all structures of each validation split, by the name of its folder; of other data none.

    The splits are whole, whatever `data.num_valid` says. `structures` is their number.
    """
    if dataset.config.name not in NAMES or "energy" not in dataset.properties:
        return {}
    splits = split_of(dataset.container.id)
    return {
        name: _evaluate(predictor, dataset, np.flatnonzero(splits == name)) for name in VALIDATION if name in splits
    }


def _evaluate(predictor: Predictor, dataset: Dataset, structures: np.ndarray) -> dict[str, float]:
    energies, forces = [], []
    for start in range(0, len(structures), CHUNK):
        part = dataset.container.select(structures[start : start + CHUNK])
        store = predictor.graph_store(part.N, part.Z, part.R, *part.cell_arrays())
        prediction = predictor.predict_store(store, np.arange(len(part)))
        energies.append(predictor.named(prediction)["energy"])
        forces.append(prediction.forces)
    data = dataset.container.select(structures)
    errors = np.concatenate(energies) - data.labels("energy")
    labelled = np.isfinite(errors)
    metrics = {"structures": len(structures), **energy_metrics(errors[labelled])}
    if dataset.has_forces:
        metrics |= force_metrics(errors, np.concatenate(forces), data.labels("forces"), data.molecule_of_atom)
    return metrics


def format_splits(dataset: Dataset, splits: dict[str, dict[str, float]]) -> str:
    """Return the metrics of the splits as text, for IS2RE with the published rows of SphereNet's Table 2."""
    metrics = [name for name in COLUMNS if name in next(iter(splits.values()))]
    rows = [heading(splits)]
    for metric in metrics:
        title, digits, factor = COLUMNS[metric]
        rows.append([title, *[""] * len(splits)])
        rows.append(["  here", *(f"{factor * found[metric]:{digits}}" for found in splits.values())])
        if not dataset.has_forces:
            which = ("energy_mae", "ewt").index(metric)
            for model, values in PUBLISHED.items():
                by_split = dict(zip(VALIDATION, values[which]))
                rows.append([f"  {model}", *(f"{by_split[split]:{digits}}" for split in splits)])
    text = format_rows(rows)
    return text if dataset.has_forces else f"{text}\n{_note(dataset)}"


def format_rows(rows: Sequence[Sequence[str]]) -> str:
    """Return a table as text: the first column to the left, the others to the right.

    Examples
    --------
    >>> print(format_rows([["", "ID", "OOD Both"], ["energy MAE / eV", "0.1", "0.25"]]))
                      ID  OOD Both
    energy MAE / eV  0.1      0.25
    """
    widths = [max(len(row[c]) for row in rows) for c in range(len(rows[0]))]
    lines = [
        "  ".join(cell.rjust(width) if c else cell.ljust(width) for c, (cell, width) in enumerate(zip(row, widths)))
        for row in rows
    ]
    return "\n".join(line.rstrip() for line in lines)


def heading(splits: Mapping[str, Mapping[str, float]]) -> list[str]:
    """Return the first row of a table of splits: their names in the papers and their sizes."""
    return ["", *(f"{VALIDATION[split]} ({found['structures']})" for split, found in splits.items())]


def _note(dataset: Dataset) -> str:
    """Return the source of the published rows, and what makes them no comparison."""
    note = "Published rows: SphereNet, Table 2, IS2RE of OC20, trained on 10k structures. "
    if dataset.config.name == "oc20_sample":
        return note + "They are no comparison: the embedded slabs have energies of another method."
    return note + f"Here: {dataset.container.source}, trained on {len(dataset.split.train)} structures."
