"""The end of a run: errors of its best model, as table, JSON and pictures."""

from __future__ import annotations

import json
from typing import NamedTuple

import numpy as np

from dimenet_tf.data.dataset import Dataset
from dimenet_tf.errors import UserError
from dimenet_tf.predictor import Predictor
from dimenet_tf.properties.prediction import Prediction
from dimenet_tf.runs.folder import RunFolder
from dimenet_tf.structures.container import DataContainer
from dimenet_tf.training.metrics import evaluate, evaluate_baseline, format_table


class Evaluation(NamedTuple):
    """Predictions and errors of some molecules of a data set."""

    molecules: np.ndarray
    """(n,) int, their numbers in the data set."""
    data: DataContainer
    prediction: Prediction
    table: dict
    baseline: dict


def evaluate_part(predictor: Predictor, dataset: Dataset, part: str = "test", limit: int | None = None) -> Evaluation:
    """Predict the molecules of one part of the split and compute their errors.

    Parameters
    ----------
    part : "test", "valid" or "train": which molecules of the split
    limit : largest number of molecules, taken evenly from the part; None for all
    """
    molecules = getattr(dataset.split, part)
    if len(molecules) == 0:
        raise UserError(f"the split has no {part} molecules")
    if limit is not None and limit < len(molecules):
        molecules = molecules[np.linspace(0, len(molecules) - 1, limit).astype(int)]
    # only these molecules: a large data set need not be searched for neighbors as a whole
    selected = dataset.container.select(molecules)
    store = predictor.graph_store(selected.N, selected.Z, selected.R, *selected.cell_arrays())
    predicted = predictor.predict_store(store, np.arange(len(molecules)))
    table, baseline = evaluate(dataset, selected, predicted), evaluate_baseline(dataset, molecules)
    return Evaluation(molecules, selected, predicted, table, baseline)


def report(predictor: Predictor, dataset: Dataset, folder: RunFolder, part: str = "test") -> str:
    """Evaluate a predictor, write JSON and plots into the run folder and return the printed table.

    Parameters
    ----------
    part : "test", "valid" or "train": which molecules of the split
    """
    from dimenet_tf import plots  # matplotlib is needed here only

    molecules, selected, predicted, table, baseline = evaluate_part(predictor, dataset, part)
    result = {**table, "part": part, "mae_of_per_element_fit": {k: t["mae"] for k, t in baseline["targets"].items()}}
    (folder.path / f"{part}.json").write_text(json.dumps(result, indent=1))
    folder.plots.mkdir(exist_ok=True)
    learned = {name: values for name, values in predictor.named(predicted).items() if name in dataset.learned}
    for name, values in learned.items():
        path = folder.plots / f"{part}_{name.replace('/', '_')}.png"
        labels, values = selected.labels(name).ravel(), values.ravel()
        has = ~np.isnan(labels)
        if has.any():
            plots.parity(name, predictor.units[name], labels[has], values[has], path)
    metrics = folder.read_metrics()
    if metrics:
        plots.learning_curve(
            metrics, {name: predictor.units[name] for name in learned}, folder.plots / "learning_curve.png"
        )
    return f"{len(molecules)} {part} molecules\n{format_table(table, baseline)}"
