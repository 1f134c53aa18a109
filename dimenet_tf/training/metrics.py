"""Errors as the papers report them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dimenet_tf.data.dataset import Dataset


def error_table(names: Sequence[str], units: Sequence[str], sigmas: np.ndarray, errors: np.ndarray) -> dict:
    """Summarize the errors of several targets.

    Parameters
    ----------
    names, units : of the targets
    sigmas : (targets,) standard deviations over the whole data set
    errors : (molecules, targets) prediction minus label

    Returns
    -------
    dict
        `targets`: for each target its unit, MAE, RMSE, largest error, std. MAE in % and logMAE;
        `std_mae` and `log_mae`: their means over targets (DimeNet, Eqs. 10 and 11; natural logarithm).
    """
    absolute = np.abs(errors)
    mae = absolute.mean(axis=0)
    standard = mae / sigmas
    targets = {
        name: {
            "unit": units[t],
            "mae": float(mae[t]),
            "rmse": float(np.sqrt((errors[:, t] ** 2).mean())),
            "max": float(absolute[:, t].max()),
            "std_mae": float(100 * standard[t]),
            "log_mae": float(np.log(standard[t])),
        }
        for t, name in enumerate(names)
    }
    return {
        "molecules": len(errors),
        "targets": targets,
        "std_mae": float(100 * standard.mean()),
        "log_mae": float(np.log(standard).mean()),
    }


def evaluate(dataset: Dataset, molecules: np.ndarray, predicted: np.ndarray) -> dict:
    """Return the error table of predictions of some molecules, (len(molecules), targets)."""
    units = [kind.unit for kind in dataset.kinds]
    return error_table(dataset.names, units, dataset.sigmas, predicted - dataset.targets[molecules])


def format_table(table: dict, baseline: dict | None = None) -> str:
    """Return an error table as text; `baseline` adds the MAE of a second table as a column."""
    header = ["target", "unit", "MAE", "RMSE", "max", "std. MAE / %", "logMAE"]
    rows = [
        [name, t["unit"] or "-", *(f"{t[k]:.4g}" for k in ("mae", "rmse", "max", "std_mae")), f"{t['log_mae']:.2f}"]
        for name, t in table["targets"].items()
    ]
    if len(rows) > 1:
        rows.append(["mean", "", "", "", "", f"{table['std_mae']:.4g}", f"{table['log_mae']:.2f}"])
    if baseline is not None:
        header.append("MAE of a per-element fit")
        for row in rows:
            row.append(f"{baseline['targets'][row[0]]['mae']:.4g}" if row[0] in baseline["targets"] else "")
    widths = [max(len(row[c]) for row in [header, *rows]) for c in range(len(header))]
    lines = [
        "  ".join(cell.ljust(w) if c < 2 else cell.rjust(w) for c, (cell, w) in enumerate(zip(r, widths)))
        for r in [header, *rows]
    ]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])
