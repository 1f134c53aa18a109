"""Pictures of a run or model by their kind."""

from __future__ import annotations

from pathlib import Path

from dimenet_tf.errors import UserError
from dimenet_tf.plots.models import draw_diagram, draw_pictures, pair_outputs
from dimenet_tf.plots.runs import learning_curve
from dimenet_tf.predictor import load
from dimenet_tf.runs.folder import RunFolder

KINDS = ("basis", "filters", "architecture", "curves")


def draw(kind: str, source: str, folder: Path) -> list[Path]:
    """Draw one kind of picture of a run or model into a folder; return the files.

    The model defines what its pictures show. `filters` of a model that defines none are replaced by the model's output
    for two atoms against their distance (`pairs.png`).
    """
    predictor = load(source)
    model = predictor.model
    folder.mkdir(parents=True, exist_ok=True)
    if kind == "basis":
        return draw_pictures(model.basis_pictures(), folder)
    if kind == "filters":
        return draw_pictures(model.filter_pictures() or {"pairs": pair_outputs(model, predictor.elements)}, folder)
    path = folder / f"{kind}.png"
    if kind == "architecture":
        title = f"{predictor.model_name}, {model.count_params():,} parameters"
        draw_diagram(model.architecture(), title, path)
    else:
        metrics = RunFolder(source).read_metrics()
        if not metrics:
            raise UserError(f"{source} has no metrics.csv; name a run folder")
        learning_curve(metrics, predictor.units, path)
    return [path]
