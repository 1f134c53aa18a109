"""What users hold: a model with its head, its units and everything else that a prediction needs."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from dimenet_tf.elements import symbols
from dimenet_tf.errors import UserError
from dimenet_tf.graph import Graph, GraphStore, graph_signature
from dimenet_tf.heads import ScalarHead
from dimenet_tf.models import build_model
from dimenet_tf.weights import load_weights, save_weights

DESCRIPTION, WEIGHTS = "predictor.json", "weights.h5"
FORMAT = 1


class Predictor(tf.keras.Model):
    """Model, head and units: raw atomic numbers and positions -> properties.

    `predictor(graph)` returns (molecules, targets) float64; `predict` takes molecules and returns named properties.

    Parameters
    ----------
    model_name, hyperparameters : as `build_model`
    head : turns atom features into properties
    elements : atomic numbers that the training data contained; others are refused
    dtype : "float32" or "float64"
    """

    def __init__(
        self,
        model_name: str,
        hyperparameters: Mapping,
        head: ScalarHead,
        elements: Sequence[int],
        dtype: str = "float32",
    ) -> None:
        super().__init__(dtype=dtype)
        self.model_name = model_name
        self.model = build_model(model_name, dtype=dtype, **hyperparameters)
        self.head = head
        self.elements = sorted(int(z) for z in elements)
        self.predict_graph = tf.function(self.call, input_signature=[graph_signature(dtype)])

    def call(self, graph: Graph) -> tf.Tensor:
        return self.head(self.model(graph), graph)

    @property
    def units(self) -> dict[str, str]:
        """Unit of every property by name."""
        return dict(zip(self.head.targets, self.head.units))

    def graph_store(self, N: np.ndarray, Z: np.ndarray, R: np.ndarray) -> GraphStore:
        """Find the neighbors of molecules given as flat arrays (see `GraphStore`)."""
        return GraphStore(N, Z, R, self.model.cutoff, self.model.needs, self.dtype)

    def predict_store(self, store: GraphStore, molecules: np.ndarray, batch_size: int = 32) -> np.ndarray:
        """Predict some molecules of a store, (len(molecules), targets) float64."""
        parts = [
            self.predict_graph(store.batch(molecules[start : start + batch_size])).numpy()
            for start in range(0, len(molecules), batch_size)
        ]
        return np.concatenate([np.empty((0, len(self.head.targets))), *parts])

    def predict(self, inputs, batch_size: int = 32) -> dict[str, np.ndarray]:
        """Predict the properties of molecules.

        Parameters
        ----------
        inputs : {"Z": (B, A) int, "R": (B, A, 3) float, Angstrom}, padded with Z = 0 behind each molecule's atoms,
            or a list of `ase.Atoms`
        batch_size : molecules computed at once

        Returns
        -------
        dict from each property's name to (B,) float64, in `units`

        Raises
        ------
        UserError
            For coordinates that are not finite, atoms at the same place, elements that the training data did not
            contain, molecules without atoms, or arrays that do not fit each other; names the molecule.
        """
        N, Z, R = _flat_arrays(inputs)
        R = R.astype(self.dtype)  # atoms may fall together in it
        self._check(N, Z, R)
        values = self.predict_store(self.graph_store(N, Z, R), np.arange(len(N)), batch_size)
        return {name: values[:, t] for t, name in enumerate(self.head.targets)}

    def _check(self, N: np.ndarray, Z: np.ndarray, R: np.ndarray) -> None:
        ends = np.cumsum(N)
        for molecule, (start, end) in enumerate(zip(ends - N, ends)):
            z, r = Z[start:end], R[start:end]
            if len(z) == 0:
                raise UserError(f"molecule {molecule} has no atoms")
            if not np.isfinite(r).all():
                raise UserError(f"molecule {molecule}: a coordinate is not finite")
            unseen = sorted(set(z.tolist()) - set(self.elements))
            if unseen:
                raise UserError(
                    f"molecule {molecule} contains {symbols(unseen)}, which the training data did not; "
                    f"this model knows {symbols(self.elements)}"
                )
            if len(np.unique(r, axis=0)) < len(r):
                raise UserError(f"molecule {molecule}: two atoms are at the same place")

    def to_folder(self, folder: str | Path) -> None:
        """Write the predictor: `predictor.json` (everything but weights) and `weights.h5`."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        description = {
            "format": FORMAT,
            "model": {"name": self.model_name, **self._model_config()},
            "dtype": self.dtype,
            "elements": self.elements,
            "head": self.head.get_config(),
        }
        save_weights(self.model, folder / WEIGHTS)
        (folder / DESCRIPTION).write_text(json.dumps(description, indent=1))

    def _model_config(self) -> dict:
        return {k: v for k, v in self.model.get_config().items() if k not in ("name", "dtype")}

    @classmethod
    def from_folder(cls, folder: str | Path) -> Predictor:
        """Read what `to_folder` wrote."""
        folder = Path(folder)
        try:
            description = json.loads((folder / DESCRIPTION).read_text())
        except (OSError, json.JSONDecodeError) as error:
            raise UserError(f"{folder / DESCRIPTION} cannot be read ({error})") from None
        if description["format"] > FORMAT:
            raise UserError(f"{folder} was written by a newer version of dimenet_tf")
        model = description["model"]
        predictor = cls(
            model.pop("name"), model, ScalarHead(**description["head"]), description["elements"], description["dtype"]
        )
        load_weights(predictor.model, folder / WEIGHTS)
        return predictor

    def clone(self) -> Predictor:
        """Return a predictor with the same configuration and the same weights in variables of its own."""
        head = ScalarHead.from_config(self.head.get_config())
        twin = Predictor(self.model_name, self._model_config(), head, self.elements, self.dtype)
        twin.set_weights(self.get_weights())
        return twin


def pretrained_folders() -> dict[str, Path]:
    """Return the models that come with the library, by name."""
    package = Path(__file__).parent
    # installed inside the package, beside it in a source tree
    roots = [root for root in (package / "pretrained", package.parent / "pretrained") if root.is_dir()]
    return {path.parent.name: path.parent for root in roots for path in sorted(root.glob(f"*/{DESCRIPTION}"))}


def load(path: str | Path) -> Predictor:
    """Load a predictor from a run's or a predictor's folder, or a pretrained model by its name."""
    path = Path(path)
    for folder in (path, path / "best"):
        if (folder / DESCRIPTION).exists():
            return Predictor.from_folder(folder)
    if path.exists():
        raise UserError(f"{path} holds no trained model (neither {DESCRIPTION} nor best/{DESCRIPTION})")
    known = pretrained_folders()
    if str(path) in known:
        return Predictor.from_folder(known[str(path)])
    close = difflib.get_close_matches(str(path), known, n=1)
    hint = f"; did you mean '{close[0]}'?" if close else ""
    raise UserError(f"no such run or model: {path}{hint}")


def _flat_arrays(inputs) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return N (B,), Z (sum N,) and R (sum N, 3) of any input that `Predictor.predict` takes."""
    if isinstance(inputs, Mapping):
        if not {"Z", "R"} <= set(inputs):
            raise UserError(f"predict needs 'Z' and 'R', got {', '.join(map(str, inputs))}")
        Z, R = np.asarray(inputs["Z"]), np.asarray(inputs["R"])
        if Z.ndim != 2 or R.shape != (*Z.shape, 3):
            raise UserError(f"Z must be (molecules, atoms) and R (molecules, atoms, 3), got {Z.shape} and {R.shape}")
        real = Z != 0
        if (np.diff(real.astype(int), axis=1) > 0).any():
            raise UserError("Z = 0 is padding and may only stand behind a molecule's atoms")
        return real.sum(axis=1), Z[real], R[real]
    if hasattr(inputs, "numbers"):
        raise UserError("predict takes a list of molecules: predict([atoms])")
    inputs = list(inputs)
    for i, atoms in enumerate(inputs):
        if not hasattr(atoms, "numbers"):
            raise UserError(f"molecule {i} is no ase.Atoms but {type(atoms).__name__}")
        if atoms.pbc.any():
            raise UserError(f"molecule {i} is periodic; only molecules are supported")
    return (
        np.array([len(atoms) for atoms in inputs], np.int32),
        np.concatenate([np.empty(0, int), *(atoms.numbers for atoms in inputs)]),
        np.concatenate([np.empty((0, 3)), *(atoms.positions for atoms in inputs)]),
    )
