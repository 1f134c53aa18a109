import json
import logging
import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import pytest
import tensorflow as tf
from ase.build import molecule

from dimenet_tf.graph import Graph, GraphStore
from dimenet_tf.models import MODELS, build_model
from dimenet_tf.predictor.weights import assign_weights, named_variables

# two of them let one process test what happens on two devices
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)

DATA = Path(__file__).parent / "data"
SMALL = {name: dict(kind.small) for name, kind in MODELS.items()}
DIMENETS = ("dimenet", "dimenet_pp")


class DeprecatedCalls(logging.Handler):
    """Errors for deprecated calls from the package, which TensorFlow logs instead of warning of them."""

    WRAPPERS = (__name__, "logging", "tensorflow.python.platform", "tensorflow.python.util")

    def emit(self, record: logging.LogRecord) -> None:
        caller = sys._getframe()
        while caller and caller.f_globals.get("__name__", "").startswith(self.WRAPPERS):
            caller = caller.f_back
        from_package = caller and caller.f_globals.get("__name__", "").startswith("dimenet_tf")
        if from_package and " is deprecated" in record.getMessage():
            raise DeprecationWarning(record.getMessage())


tf.get_logger().addHandler(DeprecatedCalls())


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files come first: at the end one process would wait for the other."""
    items.sort(key=lambda item: item.path.parent.name != "integration")


def molecules(*names: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """N, Z, R of molecules of ASE's collection."""
    atoms = [molecule(name) for name in names]
    return (
        np.array([len(a) for a in atoms]),
        np.concatenate([a.numbers for a in atoms]),
        np.concatenate([a.positions for a in atoms]),
    )


def closed_shell(name: str):
    """A molecule of ASE's collection without its magnetic moments: the atom H as the models know it."""
    atoms = molecule(name)
    atoms.set_initial_magnetic_moments(None)
    return atoms


def graph_of(N, Z, R, model):
    store = GraphStore(N, Z, R, model.cutoff, model.needs, model.dtype)
    return store.batch(range(len(N)))


def tensors(graph: Graph) -> Graph:
    return graph.to_tensors()


def error(ours, theirs) -> float:
    return np.abs(np.asarray(ours) - theirs).max() / np.abs(theirs).max()


def energies(model, N, Z, R) -> np.ndarray:
    """Sum of the atoms' scalars, (molecules, targets) float64."""
    graph = graph_of(N, Z, R, model)
    return tf.math.unsorted_segment_sum(model(graph).scalars, graph.molecule_of_atom, len(N)).numpy()


class Reference:
    """Numbers of a published implementation (tests/data/README.md)."""

    def __init__(self, name: str, which: str) -> None:
        self.arrays = np.load(DATA / f"{name}_{which}.npz")
        self.name = name
        self.hyperparameters = json.loads((DATA / f"{name}_{which}.json").read_text())["hyperparameters"]

    def __getitem__(self, key: str) -> np.ndarray:
        return self.arrays[key]

    @property
    def molecules(self):
        return self["in/N"], self["in/Z"], self["in/R"]

    def model(self, dtype: str, **options) -> tf.keras.Model:
        model = build_model(self.name, dtype=dtype, **self.hyperparameters, **options)
        weights = {key[2:]: self[key] for key in self.arrays.files if key.startswith("w/")}
        assign_weights(model, weights, "reference")
        return model

    def rows(self, key: str, ours: np.ndarray) -> np.ndarray:
        """Select the rows that the file holds of an intermediate."""
        return ours[self[f"rows/{key}"]] if f"rows/{key}" in self.arrays.files else ours


@pytest.fixture(params=DIMENETS)
def model_name(request) -> str:
    return request.param


def randomize(model: tf.keras.Model, seed: int = 0) -> tf.keras.Model:
    """Give every weight of a model, biases and zero outputs too, a value that matters; bases stay as they are."""
    rng = np.random.default_rng(seed)
    for name, variable in named_variables(model).items():
        if not name.endswith(("frequencies", "centers", "widths")):
            variable.assign(variable + 0.1 * rng.standard_normal(variable.shape))
    return model
