"""Training state saved with each checkpoint, in addition to weights and optimizer."""

from __future__ import annotations

import json
import math

import tensorflow as tf


class RunState(tf.train.experimental.PythonState):
    """Numbers that belong to every checkpoint, so that a resumed run equals a run that was never stopped."""

    def __init__(self) -> None:
        self.best_error = math.inf
        self.stale = 0  # validations since the best one
        self.smooth_loss: float | None = None  # of validations: what the learning rate's decay looks at
        self.best_loss = math.inf  # the best of it
        self.plateau = 0  # validations since the best loss, or since the last decay's cooldown
        self.cooldown = 0  # validations that are left of it
        self.validated = 0  # step of the last validation
        self.rollbacks = 0
        self.judged = False  # whether the errors were compared with those of the baseline
        self.loss_sum = 0.0  # of the steps since the last validation
        self.loss_count = 0
        self.mean_before = math.inf  # of those before it
        self.length: dict | None = None  # the run's, see `Trainer`; None in checkpoints of earlier versions

    def on_plateau(self, loss: float, patience: int, cooldown: int, smoothing: float = 0.0) -> bool:
        """Return whether the learning rate decays after a validation of this loss, as Keras' `ReduceLROnPlateau`.

        It looks at the exponentially smoothed loss: `smoothing` is what the former ones count (PaiNN, Sec. 5).
        """
        before = loss if self.smooth_loss is None else self.smooth_loss
        self.smooth_loss = smoothing * before + (1 - smoothing) * loss
        self.cooldown = max(self.cooldown - 1, 0)
        improved = self.smooth_loss < self.best_loss
        self.best_loss = min(self.smooth_loss, self.best_loss)
        self.plateau = 0 if improved or self.cooldown else self.plateau + 1
        if self.plateau < patience:
            return False
        self.plateau, self.cooldown = 0, cooldown
        return True

    def add_loss(self, loss: float) -> None:
        self.loss_sum += loss
        self.loss_count += 1

    @property
    def mean_loss(self) -> float:
        """Mean loss of the steps since the last validation."""
        return self.loss_sum / max(self.loss_count, 1)

    @property
    def usual_loss(self) -> float:
        """Mean loss for comparison: since the last validation, or before it while there are fewer than 10 steps."""
        return self.mean_loss if self.loss_count >= 10 else self.mean_before

    def forget_losses(self) -> None:
        self.mean_before = self.mean_loss if self.loss_count else self.mean_before
        self.loss_sum, self.loss_count = 0.0, 0

    def serialize(self) -> str:
        return json.dumps({key: value for key, value in vars(self).items() if not key.startswith("_")})

    def deserialize(self, string_value: str) -> None:
        self.__dict__.update(json.loads(string_value))
