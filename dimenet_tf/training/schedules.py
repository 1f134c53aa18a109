"""Learning rates over a run."""

from __future__ import annotations

import tensorflow as tf


class WarmupExponentialDecay(tf.keras.optimizers.schedules.LearningRateSchedule):
    """learning_rate * min(1, (step + 1) / warmup_steps) * decay_rate^(step / decay_steps) (DimeNet, App. B).

    `factor`, a number or variable, multiplies all of it.
    """

    def __init__(
        self, learning_rate: float, warmup_steps: int, decay_steps: int, decay_rate: float, factor=1.0
    ) -> None:
        self.learning_rate = learning_rate
        self.warmup_steps = warmup_steps
        self.decay_steps = decay_steps
        self.decay_rate = decay_rate
        self.factor = factor

    def __call__(self, step: tf.Tensor) -> tf.Tensor:
        step = tf.cast(step, tf.float32)
        warmup = tf.minimum(1.0, (step + 1) / max(self.warmup_steps, 1))
        return self.factor * self.learning_rate * warmup * self.decay_rate ** (step / self.decay_steps)

    def get_config(self) -> dict:
        return {
            "learning_rate": self.learning_rate,
            "warmup_steps": self.warmup_steps,
            "decay_steps": self.decay_steps,
            "decay_rate": self.decay_rate,
            "factor": float(self.factor),
        }
