"""Learning rates over a run."""

from __future__ import annotations

import math

import tensorflow as tf

from dimenet_tf.config.settings import DECAYS
from dimenet_tf.errors import check_choice


class WarmupDecay(tf.keras.optimizers.schedules.LearningRateSchedule):
    """learning_rate * min(1, (step + 1) / warmup_steps) * decay(step / decay_steps).

    Parameters
    ----------
    learning_rate, warmup_steps, decay_steps, decay_rate
    factor : number or variable that multiplies all of it
    decay : "exponential", decay_rate^x (DimeNet, App. B), or "cosine", half a wave from 1 down to decay_rate at x = 1,
        where it stays
    """

    def __init__(
        self,
        learning_rate: float,
        warmup_steps: int,
        decay_steps: int,
        decay_rate: float,
        factor: float | tf.Variable = 1.0,
        decay: str = "exponential",
    ) -> None:
        check_choice("training.decay", decay, DECAYS)
        self.learning_rate = learning_rate
        self.warmup_steps = warmup_steps
        self.decay_steps = decay_steps
        self.decay_rate = decay_rate
        self.factor = factor
        self.decay = decay

    def __call__(self, step: tf.Tensor) -> tf.Tensor:
        step = tf.cast(step, tf.float32)
        warmup = tf.minimum(1.0, (step + 1) / max(self.warmup_steps, 1))
        x = step / self.decay_steps
        if self.decay == "exponential":
            decay = self.decay_rate**x
        else:
            wave = 0.5 * (1 + tf.cos(math.pi * tf.minimum(x, 1.0)))
            decay = self.decay_rate + (1 - self.decay_rate) * wave
        return self.factor * self.learning_rate * warmup * decay

    def get_config(self) -> dict:
        return {
            "learning_rate": self.learning_rate,
            "warmup_steps": self.warmup_steps,
            "decay_steps": self.decay_steps,
            "decay_rate": self.decay_rate,
            "factor": float(self.factor),
            "decay": self.decay,
        }
