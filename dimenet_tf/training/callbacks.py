"""What happens beside the training steps."""

from __future__ import annotations

import math
import signal
import time

import tensorflow as tf
from tqdm import tqdm

from dimenet_tf.errors import UserError
from dimenet_tf.training.optimizer import learning_rate, steps_made


class Progress(tf.keras.callbacks.Callback):
    """One progress bar for the whole run: loss, validation errors, steps/s and time left."""

    def __init__(self, first_step: int, num_steps: int) -> None:
        super().__init__()
        self.bar = tqdm(total=num_steps, initial=first_step, unit="step", dynamic_ncols=True, mininterval=0.5)
        self.validation = ""
        self.smooth_loss = None
        self.losses = []

    def mean_loss(self) -> float:
        """Return the mean loss since training was last begun or resumed after a validation."""
        return sum(self.losses) / len(self.losses)

    def on_train_begin(self, logs=None) -> None:
        self.losses = []

    def show_validation(self, text: str) -> None:
        self.validation = f", validation {text}"

    def on_train_batch_end(self, batch: int, logs: dict) -> None:
        self.losses.append(logs["loss"])
        previous = self.smooth_loss if self.smooth_loss is not None else logs["loss"]
        self.smooth_loss = 0.95 * previous + 0.05 * logs["loss"]
        self.bar.set_postfix_str(f"loss {self.smooth_loss:.4g}{self.validation}", refresh=False)
        self.bar.update()


class Scalars(tf.keras.callbacks.Callback):
    """Loss, gradient norm, learning rate and steps/s for TensorBoard."""

    def __init__(self, writer: tf.summary.SummaryWriter, optimizer, interval: int) -> None:
        super().__init__()
        self.writer = writer
        self.optimizer = optimizer
        self.interval = interval
        self.last = None  # (time, step) of the last record

    def on_train_begin(self, logs=None) -> None:
        self.last = None  # the time between two calls of `fit` belongs to the evaluation

    def on_train_batch_end(self, batch: int, logs: dict) -> None:
        step = steps_made(self.optimizer)
        if self.last is None:
            self.last = time.monotonic(), step
        if step % self.interval:
            return
        now = time.monotonic()
        with self.writer.as_default(step=step):
            tf.summary.scalar("train/loss", logs["loss"])
            tf.summary.scalar("train/gradient_norm", logs["gradient_norm"])
            tf.summary.scalar("train/learning_rate", learning_rate(self.optimizer))
            if step > self.last[1]:
                tf.summary.scalar("train/steps_per_second", (step - self.last[1]) / (now - self.last[0]))
        self.last = now, step


class StopOnNan(tf.keras.callbacks.Callback):
    """Ends the run at the first loss that is not finite, before it reaches a checkpoint."""

    def __init__(self, optimizer) -> None:
        super().__init__()
        self.optimizer = optimizer

    def on_train_batch_end(self, batch: int, logs: dict) -> None:
        if not math.isfinite(logs["loss"]) or not math.isfinite(logs["gradient_norm"]):
            raise UserError(
                f"step {steps_made(self.optimizer)}: loss {logs['loss']}, gradient norm {logs['gradient_norm']}; "
                "training diverged, try a smaller training.learning_rate"
            )


class StopOnInterrupt(tf.keras.callbacks.Callback):
    """Ctrl-C ends training after the current step; a second one ends it at once. Use as a context manager."""

    def __init__(self) -> None:
        super().__init__()
        self.interrupted = False

    def __enter__(self) -> StopOnInterrupt:
        self._previous = signal.signal(signal.SIGINT, self._on_signal)
        return self

    def __exit__(self, *exception) -> None:
        signal.signal(signal.SIGINT, self._previous)

    def _on_signal(self, number, frame) -> None:
        self.interrupted = True
        signal.signal(signal.SIGINT, self._previous)

    def on_train_batch_end(self, batch: int, logs: dict) -> None:
        if self.interrupted:
            self.model.stop_training = True
