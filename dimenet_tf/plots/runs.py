"""Pictures of runs: learning curves, parity plots, residuals, tables."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

MAX_POINTS = 10_000  # of a parity plot; more only make the file larger


def _label(name: str, unit: str) -> str:
    return f"{name} / {unit}" if unit else name


def learning_curve(metrics: list[dict[str, float]], units: dict[str, str], path: str | Path) -> None:
    """Draw losses and validation MAE of each target against steps, both logarithmic.

    Examples
    --------
    >>> import tempfile
    >>> metrics = [{"step": 10, "loss": 2.0, "mae_U0": 0.3}, {"step": 20, "loss": 1.0, "mae_U0": 0.2}]
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     learning_curve(metrics, {"U0": "eV"}, Path(folder) / "curve.png")
    """
    steps = [row["step"] for row in metrics]
    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for key, label in (("loss", "training"), ("validation_loss", "validation (averaged weights)")):
        if key in metrics[0]:
            left.plot(steps, [row[key] for row in metrics], label=label)
    left.set(xlabel="step", ylabel="loss, in units of the targets' scales", yscale="log")
    left.legend()
    for name, unit in units.items():
        right.plot(steps, [row[f"mae_{name}"] for row in metrics], label=_label(name, unit))
    right.set(xlabel="step", ylabel="validation MAE", yscale="log")
    right.legend()
    for axes in (left, right):
        axes.grid(True, which="both", alpha=0.3)
    figure.savefig(path, dpi=120)


def parity(name: str, unit: str, labels: np.ndarray, predicted: np.ndarray, path: str | Path) -> None:
    """Draw predictions against labels, and a histogram of their differences.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     parity("mu", "D", np.array([0.1, 1.8]), np.array([0.2, 1.7]), Path(folder) / "parity.png")
    """
    figure = Figure(figsize=(10, 4.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    shown = np.linspace(0, len(labels) - 1, min(len(labels), MAX_POINTS)).astype(int)
    low, high = min(labels.min(), predicted.min()), max(labels.max(), predicted.max())
    left.plot([low, high], [low, high], color="gray", linewidth=1)
    left.plot(labels[shown], predicted[shown], ".", markersize=4)
    left.set(xlabel=f"label: {_label(name, unit)}", ylabel=f"prediction: {_label(name, unit)}")
    left.set_title(f"{len(labels)} values")
    errors = predicted - labels
    right.hist(errors, bins=50)
    right.axvline(0, color="gray", linewidth=1)
    right.set(xlabel=f"prediction - label: {_label(name, unit)}", ylabel="number")
    right.set_title(f"MAE {np.abs(errors).mean():.4g} {unit}")
    figure.savefig(path, dpi=120)


def table(rows: list[list[str]], path: str | Path) -> None:
    """Draw a table of text; the first row is its header.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     table([["target", "MAE"], ["mu / D", "0.1"]], Path(folder) / "table.png")
    """
    figure = Figure(figsize=(1.05 * len(rows[0]), 0.32 * len(rows)), layout="constrained")
    axes = figure.subplots()
    axes.axis("off")
    drawn = axes.table(rows[1:], colLabels=rows[0], loc="center", cellLoc="right")
    drawn.auto_set_font_size(False)
    drawn.set_fontsize(9)
    figure.savefig(path, dpi=120)
