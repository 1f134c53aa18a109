"""Comparison of several single-target runs with the papers' tables of QM9 errors."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dimenet_tf.errors import UserError
from dimenet_tf.predictor import load
from dimenet_tf.runs.folder import RunFolder
from dimenet_tf.training.session import open_dataset

UNITS = {"mu": "D", "alpha": "a0^3", "r2": "a0^2", "Cv": "cal/mol/K"}  # all others: meV
# MAE of mu, alpha, homo, lumo, gap, r2, zpve, U0, U, H, G, Cv as printed: DimeNet, Table 1 (SchNet, PhysNet, DimeNet);
# SphereNet, Table 1 (DimeNet++, SphereNet); PaiNN, Table 2; DPGN, Table I
TARGETS = ("mu", "alpha", "homo", "lumo", "gap", "r2", "zpve", "U0", "U", "H", "G", "Cv")
PUBLISHED = {
    "SchNet": (0.033, 0.235, 41, 34, 63, 0.073, 1.7, 14, 19, 14, 14, 0.033),
    "PhysNet": (0.0529, 0.0615, 32.9, 24.7, 42.5, 0.765, 1.39, 8.15, 8.34, 8.42, 9.40, 0.0280),
    "DimeNet": (0.0286, 0.0469, 27.8, 19.7, 34.8, 0.331, 1.29, 8.02, 7.89, 8.11, 8.98, 0.0249),
    "DimeNet++": (0.0297, 0.0435, 24.6, 19.5, 32.6, 0.331, 1.21, 6.32, 6.28, 6.53, 7.56, 0.0230),
    "SphereNet": (0.0269, 0.0465, 23.6, 18.9, 32.3, 0.292, 1.12, 6.26, 7.33, 6.40, 8.0, 0.0215),
    "PaiNN": (0.012, 0.045, 27.6, 20.4, 45.7, 0.066, 1.28, 5.85, 5.83, 5.98, 7.35, 0.024),
    "DPGN": (0.0267, 0.0530, 26.6, 21.6, 52.7, 0.288, 1.36, 8.76, 8.95, 8.88, 9.85, 0.027),
}


def combine(runs: Sequence[str]) -> dict:
    """Evaluate runs on their test molecules and combine them.

    The gap is lumo - homo of two runs where there is no run of its own, which must have the same split.

    Returns
    -------
    dict
        `mae` {target: MAE in the table's unit}; `std_mae` in % and `log_mae`, their means over these targets;
        `notes`, what makes the published columns no comparison
    """
    errors, sigmas, predictions, notes = {}, {}, {}, []
    for run in runs:
        folder = RunFolder(run)
        config = folder.read_config()
        if config["data"]["name"] != "qm9" or config["data"]["path"] is not None:
            notes.append(f"{run} was trained on other data than data.name: qm9, which the published errors belong to")
        dataset = open_dataset(config, folder)
        test = dataset.split.test
        data = dataset.container.select(test)
        predictor = load(folder.path)
        store = predictor.graph_store(data.N, data.Z, data.R, *data.cell_arrays())
        predicted = predictor.named(predictor.predict_store(store, np.arange(len(test))))
        for name in dataset.properties:
            if name not in TARGETS:
                raise UserError(f"{run} predicts {name}, which is not one of QM9's 12 targets")
            if name in errors:
                raise UserError(f"{run} predicts {name}, and so does another of the runs")
            errors[name] = (predicted[name] - data.labels(name))[data.labelled(name)]
            sigmas[name] = dataset.sigmas[name]
            predictions[name] = predicted[name], data, dataset.container
    if "gap" not in errors and {"homo", "lumo"} <= set(errors):
        (homo, molecules, container), (lumo, others, _) = predictions["homo"], predictions["lumo"]
        if not np.array_equal(molecules.id, others.id):
            raise UserError("the runs of homo and lumo have different test molecules: the gap cannot be computed")
        gap = container.targets.get("gap", container.labels("lumo") - container.labels("homo"))
        has = others.labelled("lumo") & molecules.labelled("homo")
        errors["gap"] = (lumo - homo - (others.labels("lumo") - molecules.labels("homo")))[has]
        sigmas["gap"] = gap[np.isfinite(gap)].std()
    names = [name for name in TARGETS if name in errors and len(errors[name])]
    if not names:
        raise UserError("no test molecule has a value of the target")
    standard = np.array([np.abs(errors[name]).mean() / sigmas[name] for name in names])
    return {
        "mae": {name: float(np.abs(errors[name]).mean()) * (1 if name in UNITS else 1000) for name in names},
        "std_mae": float(100 * standard.mean()),
        "log_mae": float(np.log(standard).mean()),
        "notes": notes,
    }


def write_table(result: dict, output: str | Path) -> str:
    """Write table1.csv and table1.png into a folder and return the table as text."""
    from dimenet_tf import plots

    output = Path(output)
    output.mkdir(parents=True, exist_ok=True)
    rows = [["target", "unit", "here", *PUBLISHED]]
    for t, name in enumerate(TARGETS):
        here = f"{result['mae'][name]:.4g}" if name in result["mae"] else "-"
        rows.append([name, UNITS.get(name, "meV"), here, *(f"{v[t]:g}" for v in PUBLISHED.values())])
    with (output / "table1.csv").open("w", newline="") as file:
        csv.writer(file).writerows([*rows, ["std. MAE", "%", result["std_mae"]], ["logMAE", "", result["log_mae"]]])
    plots.table(rows, output / "table1.png")
    widths = [max(len(row[c]) for row in rows) for c in range(len(rows[0]))]
    lines = ["  ".join(cell.rjust(w) for cell, w in zip(row, widths)) for row in rows]
    summary = f"std. MAE {result['std_mae']:.3g} %, logMAE {result['log_mae']:.2f} over {len(result['mae'])} targets"
    return "\n".join([*lines, summary, *(f"note: {note}" for note in result["notes"])])
