"""Contents of a run's folder for its report; a missing part is None, with a note that gives the reason."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np

from dimenet_tf.data.dataset import Dataset
from dimenet_tf.errors import UserError
from dimenet_tf.md.certify import CERTIFICATE, fingerprint
from dimenet_tf.predictor import Predictor, load
from dimenet_tf.runs.folder import RunFolder
from dimenet_tf.structures.quantities import find_property
from dimenet_tf.training.report import Evaluation, evaluate_part
from dimenet_tf.training.session import open_dataset


@dataclasses.dataclass(frozen=True)
class Errors:
    """Labels and predictions of one property, for the molecules that have a label.

    Parameters
    ----------
    name, unit : of the property
    rows : (rows,) int, molecule of each row, as it stands in the evaluation
    labels, predicted : (rows, components); a row is a molecule, or an atom for properties of atoms
    elements : (rows,) atomic number of each row of a property of atoms; None for others
    """

    name: str
    unit: str
    rows: np.ndarray
    labels: np.ndarray
    predicted: np.ndarray
    elements: np.ndarray | None

    @property
    def title(self) -> str:
        """Name with unit."""
        return f"{self.name} / {self.unit}" if self.unit else self.name

    @property
    def absolute(self) -> np.ndarray:
        """(rows,) mean size of the error over the components."""
        return np.abs(self.predicted - self.labels).mean(axis=1)

    def largest(self, molecules: int) -> np.ndarray:
        """Return the largest error of each molecule, (molecules,); -1 for those without a label."""
        largest = np.full(molecules, -1.0)
        np.maximum.at(largest, self.rows, np.abs(self.predicted - self.labels).max(axis=1))
        return largest


@dataclasses.dataclass(frozen=True)
class Facts:
    """Everything that a report shows of a run."""

    folder: RunFolder
    config: dict
    metrics: list[dict[str, float]]
    data: dict | None
    versions: dict
    predictor: Predictor | None
    dataset: Dataset | None
    evaluation: Evaluation | None
    finished: bool
    certificate: dict | None
    certificate_is_of_other_weights: bool
    notes: list[str]

    def errors(self) -> list[Errors]:
        """Return labels and predictions of each property."""
        if self.evaluation is None or self.predictor is None or self.dataset is None:
            return []
        molecules, found = self.evaluation.data, []
        for name, predicted in self.predictor.named(self.evaluation.prediction).items():
            if name not in self.dataset.learned or not (has := molecules.labelled(name)).any():
                continue
            per_atom = find_property(name).per_atom
            rows = molecules.molecule_of_atom if per_atom else np.arange(len(molecules))
            everything = [np.reshape(array, (len(rows), -1)) for array in (molecules.labels(name), predicted)]
            keep = has[rows] & ~np.isnan(everything[0]).any(axis=1)  # fixed atoms have no forces to compare with
            labels, values = (array[keep] for array in everything)
            elements = molecules.Z[keep] if per_atom else None
            found.append(Errors(name, self.predictor.units[name], rows[keep], labels, values, elements))
        return found


def read_facts(run: str | Path, limit: int | None = None) -> Facts:
    """Read a run's folder and predict its test molecules, at most `limit` of them.

    Raises
    ------
    UserError
        If the folder is no run folder.
    """
    folder = RunFolder(run)
    config = folder.read_config()
    metrics, notes = folder.read_metrics(), []
    finished = (folder.path / "test.json").exists()
    predictor = dataset = evaluation = None
    if not folder.best.exists():
        notes.append(
            "this run has not been validated yet, so there is no model and there are no errors: "
            f"continue with dimenet-tf train run={folder.path}"
        )
    else:
        predictor = load(folder.path)
        if not finished:
            step = f" (step {metrics[-1]['step']:.0f})" if metrics else ""
            notes.append(
                f"this run has not finished{step}: errors are those of its best model up to now; "
                f"continue with dimenet-tf train run={folder.path}"
            )
        try:
            dataset = open_dataset(config, folder)
            evaluation = evaluate_part(predictor, dataset, "test", limit)
        except UserError as error:
            notes.append(f"the test molecules could not be predicted: {error}")
    certificate = _json(folder.path / CERTIFICATE)
    other = bool(certificate and predictor and certificate.get("weights") != fingerprint(predictor))
    data, versions = _json(folder.data_file), _json(folder.path / "versions.json") or {}
    parts = (predictor, dataset, evaluation, finished, certificate, other, notes)
    return Facts(folder, config, metrics, data, versions, *parts)


def _json(path: Path) -> dict | None:
    """Read a JSON file; None if there is none."""
    if not path.exists():
        return None
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise UserError(f"{path} is no JSON file ({error}): make it again or remove it") from None
