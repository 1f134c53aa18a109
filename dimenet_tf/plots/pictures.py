"""Pictures of a run or model by their kind."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from dimenet_tf.errors import UserError
from dimenet_tf.plots.architecture import architecture, painn_architecture
from dimenet_tf.plots.models import basis, filters, painn_basis, painn_filters, torsion_filters
from dimenet_tf.plots.runs import learning_curve
from dimenet_tf.predictor import load
from dimenet_tf.runs.folder import RunFolder

KINDS = ("basis", "filters", "architecture", "curves")


def draw(kind: str, source: str, folder: Path) -> list[Path]:
    """Draw one kind of picture of a run or model into a folder; return the files."""
    predictor = load(source)

    def angles(of_angle: str, of_torsion: str) -> str:
        """Name what a model's directional bases depend on."""
        if getattr(predictor.model, "torsion", "none") == "none":
            return f"angle ({of_angle})"
        return f"angle, torsion\n({of_angle}, {of_torsion})"

    drawn: dict[str, tuple[Callable, Callable, Callable]] = {
        "dimenet": (basis, filters, architecture),
        "dimenet_pp": (basis, filters, architecture),
        "dpgn": (basis, filters, partial(architecture, angles=angles("CBF", "SBF"), exchange=True)),
        "painn": (painn_basis, painn_filters, painn_architecture),
        "spherenet": (basis, torsion_filters, partial(architecture, angles=angles("SBF", "TBF"))),
    }
    if kind != "curves" and predictor.model_name not in drawn:
        raise UserError(f"{kind}: pictures are of {', '.join(drawn)}, not of {predictor.model_name}")
    of_basis, of_filters, of_architecture = drawn.get(predictor.model_name, drawn["dimenet"])  # curves use none
    folder.mkdir(parents=True, exist_ok=True)
    if kind == "basis":
        return of_basis(predictor.model, folder)
    if kind == "filters":
        return of_filters(predictor.model, folder)
    path = folder / f"{kind}.png"
    if kind == "architecture":
        title = f"{predictor.model_name}, {predictor.model.count_params():,} parameters"
        of_architecture(path, str(predictor.model.num_blocks), title)
    else:
        metrics = RunFolder(source).read_metrics()
        if not metrics:
            raise UserError(f"{source} has no metrics.csv; name a run folder")
        learning_curve(metrics, predictor.units, path)
    return [path]
