"""What a run remembers beside weights and optimizer."""

from __future__ import annotations

import json
import math

import tensorflow as tf


class RunState(tf.train.experimental.PythonState):
    """Numbers that belong to every checkpoint, so that a run that goes on is the run that was never stopped."""

    def __init__(self) -> None:
        self.best_error = math.inf
        self.stale = 0  # validations since the best one
        self.validated = 0  # step of the last validation
        self.rollbacks = 0
        self.loss_sum = 0.0  # of the steps since the last validation
        self.loss_count = 0

    def add_loss(self, loss: float) -> None:
        self.loss_sum += loss
        self.loss_count += 1

    @property
    def mean_loss(self) -> float:
        """Of the steps since the last validation."""
        return self.loss_sum / max(self.loss_count, 1)

    def forget_losses(self) -> None:
        self.loss_sum, self.loss_count = 0.0, 0

    def serialize(self) -> str:
        fields = ("best_error", "stale", "validated", "rollbacks", "loss_sum", "loss_count")
        return json.dumps({field: getattr(self, field) for field in fields})

    def deserialize(self, string_value) -> None:
        vars(self).update(json.loads(string_value))
