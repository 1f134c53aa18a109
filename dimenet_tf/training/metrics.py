"""Errors as the papers report them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from dimenet_tf.data.dataset import Dataset
from dimenet_tf.properties.prediction import Prediction
from dimenet_tf.properties.property import Property
from dimenet_tf.structures.container import DataContainer
from dimenet_tf.structures.quantities import PROPERTIES, conversion

MAX_TYPES = 50
"""Errors of each molecule type are listed for no more types than this."""
PAPER_UNITS = {
    "energy": ("kcal/mol", "meV"),
    "forces": ("kcal/mol/Ang", "meV/Ang"),
    "stress": ("meV/Ang^3", "GPa"),
}


def error_table(
    properties: Mapping[str, Property], sigmas: Mapping[str, float], errors: Mapping[str, np.ndarray]
) -> dict:
    """Summarize the errors of several targets.

    Parameters
    ----------
    properties : targets by name
    sigmas : standard deviation of each target over the whole data set
    errors : prediction minus label of each target, (molecules with the label, ...); a target without labels has no row

    Returns
    -------
    dict
        `targets`: for each target its unit, MAE, RMSE, largest error, std. MAE in % and logMAE, those of vectors and
        tensors over their components;
        `std_mae` and `log_mae`: their means over targets (DimeNet, Eqs. 10 and 11; natural logarithm), None for none.
    """
    targets = {
        name: _row(each.unit, sigmas[name], errors[name]) for name, each in properties.items() if len(errors[name])
    }
    means = {key: [t[key] for t in targets.values()] for key in ("std_mae", "log_mae")}
    return {
        "molecules": max(map(len, errors.values())),
        "targets": targets,
        **{key: float(np.mean(values)) if values else None for key, values in means.items()},
    }


def _row(unit: str, sigma: float, errors: np.ndarray) -> dict:
    absolute = np.abs(errors)
    standard = absolute.mean() / sigma
    return {
        "unit": unit,
        "mae": float(absolute.mean()),
        "rmse": float(np.sqrt((errors**2).mean())),
        "max": float(absolute.max()),
        "std_mae": float(100 * standard),
        "log_mae": float(np.log(standard)) if standard > 0 else -np.inf,
    }


def evaluate(dataset: Dataset, molecules: DataContainer, prediction: Prediction) -> dict:
    """Return the error table of predictions of some molecules of a data set.

    Errors are those of the molecules that have the label; the row of a label that some molecules lack has their number
    (`labels`), and there is no row for a label that all lack. Where forces are learned there is a row for their
    components, and for data of several molecule types `types`: the errors of each, by its sum formula. Where a stress
    is learned there is a row for its components.
    """
    has = {name: molecules.labelled(name) for name in dataset.learned}
    errors = dataset.columns.split(prediction.values - dataset.labels(molecules))
    present = {name: error[has[name]] for name, error in errors.items()}
    table = error_table(dataset.properties, dataset.sigmas, present)
    table["molecules"] = len(molecules)
    if dataset.energy is not None:
        _add_forces(table, dataset, molecules, prediction, errors[dataset.energy], has)
    if dataset.has_stress and has["stress"].any():
        stress_errors = (prediction.stress - molecules.labels("stress"))[has["stress"]]
        table["targets"]["stress"] = _row(PROPERTIES["stress"].unit, _sigma(dataset, "stress"), stress_errors)
    for name, row in table["targets"].items():
        if not has[name].all():
            row["labels"] = int(np.count_nonzero(has[name]))
    return table


def evaluate_baseline(dataset: Dataset, molecules: np.ndarray) -> dict:
    """Return the error table of a per-element fit, zero forces and zero stress, to judge errors by.

    Parameters
    ----------
    dataset : Dataset, whose `baseline` is the fit
    molecules : (n,) int, molecules of the data set
    """
    selected = dataset.container.select(molecules)
    stress = np.zeros((len(selected), 3, 3)) if dataset.has_stress else ()
    trivial = Prediction(dataset.baseline()[molecules], np.empty(0), np.zeros_like(selected.R), stress)
    return evaluate(dataset, selected, trivial)


def _add_forces(
    table: dict,
    dataset: Dataset,
    molecules: DataContainer,
    prediction: Prediction,
    energy_errors: np.ndarray,
    has: Mapping[str, np.ndarray],
) -> None:
    """Add the row of the forces and the errors of each molecule type to an error table."""
    forces = molecules.labels("forces")
    atoms = np.isfinite(forces).all(axis=1)  # not the fixed ones, nor those of molecules without forces
    force_errors = prediction.forces - forces
    if atoms.any():
        table["targets"]["forces"] = _row(PROPERTIES["forces"].unit, _sigma(dataset, "forces"), force_errors[atoms])
    formulas = molecules.formulas()
    of_atom = formulas[molecules.molecule_of_atom]
    types = np.unique(formulas)
    if len(types) > MAX_TYPES:
        table["note"] = f"{len(types)} molecule types, more than {MAX_TYPES}: their errors are not listed"
    elif len(types) > 1:
        table["types"] = {
            str(formula): {
                "molecules": int((formulas == formula).sum()),
                "energy": _mean_size(energy_errors[has["energy"] & (formulas == formula)]),
                "forces": _mean_size(force_errors[atoms & (of_atom == formula)]),
            }
            for formula in types
        }


def _sigma(dataset: Dataset, name: str) -> float:
    """Return the standard deviation of all components of a label, as that of others, of the whole data set."""
    everywhere = dataset.container.labels(name)
    return float(everywhere[np.isfinite(everywhere)].std())


def _mean_size(errors: np.ndarray) -> float | None:
    return float(np.abs(errors).mean()) if len(errors) else None


def format_table(table: dict, baseline: dict | None = None) -> str:
    """Return an error table as text; `baseline` adds the MAE of a second table as a column.

    Energies and forces are repeated in kcal/mol and meV, as the papers print them. If labels are missing, a column
    has the number of molecules with each.
    """
    if not table["targets"]:
        return "no molecule has a label"
    header = ["target", "unit", "MAE", "RMSE", "max", "std. MAE / %", "logMAE"]
    rows = [
        [name, t["unit"] or "-", *(f"{t[k]:.4g}" for k in ("mae", "rmse", "max", "std_mae")), f"{t['log_mae']:.2f}"]
        for name, t in table["targets"].items()
    ]
    if len(table["targets"]) > 1 and "forces" not in table["targets"]:
        rows.append(["mean", "", "", "", "", f"{table['std_mae']:.4g}", f"{table['log_mae']:.2f}"])
    if any("labels" in t for t in table["targets"].values()):
        header.append("molecules")
        for row in rows:
            target = table["targets"].get(row[0])
            row.append(str(target.get("labels", table["molecules"])) if target else "")
    if baseline is not None:
        header.append("MAE of a per-element fit")
        for row in rows:
            row.append(f"{baseline['targets'][row[0]]['mae']:.4g}" if row[0] in baseline["targets"] else "")
    text = _align([header, *rows])
    if "forces" in table["targets"]:
        paper = [name for name in PAPER_UNITS if name in table["targets"]]
        text += "\n\n" + "\n".join(f"MAE of {name}: {_in_all_units(name, table)}" for name in paper)
    if "types" in table:
        columns = [("energy", unit) for unit in (PROPERTIES["energy"].unit, *PAPER_UNITS["energy"])]
        columns += [("forces", unit) for unit in (PROPERTIES["forces"].unit, *PAPER_UNITS["forces"])]
        header = ["MAE of", "frames", *(f"{name} / {unit}" for name, unit in columns)]
        rows = [
            [formula, str(t["molecules"]), *(_in_unit(t[name], name, unit) for name, unit in columns)]
            for formula, t in table["types"].items()
        ]
        text += "\n\n" + _align([header, *rows])
    return f"{text}\n{table['note']}" if "note" in table else text


def _in_unit(value: float | None, name: str, unit: str) -> str:
    return "-" if value is None else f"{value / conversion(name, unit):.4g}"


def _in_all_units(name: str, table: dict) -> str:
    """Return an MAE in the library's unit and the papers': 0.0123 eV = 0.284 kcal/mol = 12.3 meV."""
    row = table["targets"][name]
    return " = ".join(f"{row['mae'] / conversion(name, unit):.4g} {unit}" for unit in (row["unit"], *PAPER_UNITS[name]))


def _align(rows: list[list[str]]) -> str:
    widths = [max(len(row[c]) for row in rows) for c in range(len(rows[0]))]
    lines = [
        "  ".join(cell.ljust(w) if c < 2 else cell.rjust(w) for c, (cell, w) in enumerate(zip(r, widths))) for r in rows
    ]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])
