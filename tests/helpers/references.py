"""Numbers of published implementations (tests/files/README.md)."""

import json

import numpy as np
import tensorflow as tf

from dimenet_tf.models import build_model
from dimenet_tf.predictor.weights import assign_weights
from helpers.paths import FILES


class Reference:
    """Numbers of a published implementation."""

    def __init__(self, name: str, which: str) -> None:
        self.arrays = np.load(FILES / f"{name}_{which}.npz")
        self.name = name
        self.hyperparameters = json.loads((FILES / f"{name}_{which}.json").read_text())["hyperparameters"]

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
