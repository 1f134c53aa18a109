"""Errors of the averaged weights on the validation molecules."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from dimenet_tf.data.dataset import Dataset
from dimenet_tf.graph import GraphStore
from dimenet_tf.predictor import Predictor
from dimenet_tf.properties.losses import Loss
from dimenet_tf.training.metrics import evaluate, evaluate_baseline
from dimenet_tf.training.optimizer import averaged_values

NO_BETTER = 0.98  # of the baseline's error: with less a model has learned something


class Errors(NamedTuple):
    """Errors found in one validation."""

    table: dict
    """As `dimenet_tf.training.metrics.evaluate` returns it."""
    loss: float
    has_forces: bool

    @property
    def deciding(self) -> float:
        """The number that the best model has the smallest of, and that early stopping looks at."""
        # forces need the balance that training has; targets of different units the paper's mean
        return self.loss if self.has_forces else self.table["std_mae"]

    def no_better_than(self, baseline: dict) -> str:
        """Return how the errors compare with those of a baseline, one line; empty if they are clearly smaller.

        Forces decide where they are learned, else the mean over targets.

        Parameters
        ----------
        baseline : table of `dimenet_tf.training.metrics.evaluate_baseline`
        """
        decide = ["forces"] if "forces" in baseline["targets"] else list(baseline["targets"])
        pairs = {name: (self.table["targets"][name]["mae"], baseline["targets"][name]["mae"]) for name in decide}
        ratios = [mine / max(trivial, 1e-12) for mine, trivial in pairs.values()]
        if sum(ratios) < NO_BETTER * len(ratios):
            return ""
        units = {name: self.table["targets"][name]["unit"] for name in decide}
        words = {name: "zero forces" if name == "forces" else "the baseline" for name in decide}
        compared = [
            f"MAE of {name} {mine:.4g} {units[name]}".rstrip() + f", {words[name]}: {trivial:.4g}"
            for name, (mine, trivial) in pairs.items()
        ]
        return "; ".join(compared)

    def row(self) -> dict[str, float]:
        """Return the columns of metrics.csv."""
        row = {"validation_loss": self.loss, "std_mae": self.table["std_mae"], "log_mae": self.table["log_mae"]}
        return row | {f"mae_{name}": target["mae"] for name, target in self.table["targets"].items()}

    def summary(self) -> str:
        """Format the errors for the progress bar."""
        shown = [f"{name} {t['mae']:.4g} {t['unit']}".strip() for name, t in self.table["targets"].items()]
        return "MAE " + ", ".join(shown) if len(shown) <= 3 else f"std. MAE {self.table['std_mae']:.3g} %"

    def write_summary(self) -> None:
        """Write TensorBoard's scalars with the default writer."""
        tf.summary.scalar("validation/loss", self.loss)
        for name, target in self.table["targets"].items():
            tf.summary.scalar(f"validation/mae_{name}", target["mae"])
            tf.summary.scalar(f"validation/log_mae_{name}", target["log_mae"])


class Validation:
    """The predictor that holds the averaged weights, and the molecules that judge it.

    Parameters
    ----------
    averaged : a clone of the trained predictor: validated, tested and kept
    dataset : names, units and spreads of the targets
    loss : of training
    store : of all molecules that training uses
    rows : (n,) int, the validation molecules in the store, in the order of the split
    """

    def __init__(self, averaged: Predictor, dataset: Dataset, loss: Loss, store: GraphStore, rows: np.ndarray) -> None:
        self.averaged, self.dataset, self.loss, self.store, self.rows = averaged, dataset, loss, store, rows
        self.molecules = dataset.container.select(dataset.split.valid)

    @functools.cached_property
    def baseline(self) -> dict:
        """Error table of a per-element fit and zero forces."""
        return evaluate_baseline(self.dataset, self.dataset.split.valid)

    def run(
        self,
        predictor: Predictor,
        optimizer: tf.keras.optimizers.Optimizer,
        before_batch: Callable[[], None] | None = None,
    ) -> Errors:
        """Take over a predictor's averaged weights and predict; `before_batch` as `Predictor.predict_store`."""
        values = averaged_values(optimizer, predictor.trainable_variables)
        for variable, value in zip(self.averaged.trainable_variables, values):
            variable.assign(value)
        for variable, value in zip(self.averaged.non_trainable_variables, predictor.non_trainable_variables):
            variable.assign(value)  # scaling factors
        prediction = self.averaged.predict_store(self.store, self.rows, before_batch=before_batch)
        valid = self.molecules
        table = evaluate(self.dataset, valid, prediction)
        forces = valid.labels("forces") if self.dataset.has_forces else None
        stress = cell = None
        if self.dataset.has_stress and valid.cells is not None:
            stress, cell = valid.labels("stress"), valid.cells.cell
        labels, owner = self.dataset.labels(valid), valid.molecule_of_atom
        losses = self.loss(prediction, labels, forces, owner, valid.N, stress, cell)
        return Errors(table, float(tf.reduce_mean(valid.weight * losses)), self.dataset.has_forces)
