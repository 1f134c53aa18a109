"""Keras callbacks used by `Trainer`."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

import tensorflow as tf
from tqdm import tqdm

from dimenet_tf.training.optimizer import learning_rate, steps_made
from dimenet_tf.training.state import RunState


class Progress(tf.keras.callbacks.Callback):
    """One progress bar for the whole run: loss, validation errors, steps/s and time left. Use as a context manager."""

    def __init__(self, first_step: int, num_steps: int, silent: bool = False) -> None:
        super().__init__()
        self.bar = tqdm(
            total=num_steps, initial=first_step, unit="step", dynamic_ncols=True, mininterval=0.5, disable=silent
        )
        self.validation = ""
        self.smooth_loss: float | None = None

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *exception: Any) -> None:
        self.bar.close()

    def show_validation(self, text: str) -> None:
        self.validation = f", validation {text}"

    def on_train_batch_end(self, batch: int, logs: dict) -> None:
        previous = self.smooth_loss if self.smooth_loss is not None else logs["loss"]
        self.smooth_loss = 0.95 * previous + 0.05 * logs["loss"]
        self.bar.set_postfix_str(f"loss {self.smooth_loss:.4g}{self.validation}", refresh=False)
        self.bar.update()


class Scalars(tf.keras.callbacks.Callback):
    """Loss, gradient norm, learning rate and steps/s for TensorBoard."""

    def __init__(
        self, writer: tf.summary.SummaryWriter, optimizer: tf.keras.optimizers.Optimizer, interval: int
    ) -> None:
        super().__init__()
        self.writer = writer
        self.optimizer = optimizer
        self.interval = interval
        self.last: tuple[float, int] | None = None  # time and step of the last record

    def on_train_begin(self, logs: dict | None = None) -> None:
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


class StepTimes(tf.keras.callbacks.Callback):
    """Times at which the steps ended, in seconds."""

    def __init__(self) -> None:
        super().__init__()
        self.times: list[float] = []

    @property
    def per_step(self) -> float:
        """Mean time of a step, without the first one, which may include tracing; infinite if there was no other."""
        steps = len(self.times) - 1
        return max(self.times[-1] - self.times[0], 1e-9) / steps if steps > 0 else math.inf

    def on_train_batch_end(self, batch: int, logs: dict) -> None:
        self.times.append(time.monotonic())


class Diverged(Exception):
    """A loss that is not finite, or absurd. Its first argument describes place and kind."""


class NotFinite(Diverged):
    """That of a step, which has left the weights as they were."""


class WatchLoss(tf.keras.callbacks.Callback):
    """Adds up the losses, and ends the session at the first one that is not finite or `EXPLODED` times their mean."""

    EXPLODED = 1e6

    def __init__(self, optimizer: tf.keras.optimizers.Optimizer, state: RunState) -> None:
        super().__init__()
        self.optimizer = optimizer
        self.state = state

    def on_train_batch_end(self, batch: int, logs: dict) -> None:
        loss, norm = float(logs["loss"]), float(logs["gradient_norm"])
        usual = self.state.usual_loss
        if not math.isfinite(loss) or not math.isfinite(norm):
            raise NotFinite(f"step {steps_made(self.optimizer)}: loss {loss}, gradient norm {norm}")
        if loss > self.EXPLODED * usual:
            raise Diverged(f"step {steps_made(self.optimizer)}: loss {loss:.3g} after a mean of {usual:.3g}")
        self.state.add_loss(loss)


class SaveOften(tf.keras.callbacks.Callback):
    """Calls `save` whenever `minutes` have passed since the last call."""

    def __init__(self, save: Callable[[], None], minutes: float) -> None:
        super().__init__()
        self.save, self.seconds = save, 60 * minutes
        self.last = time.monotonic()

    def on_train_batch_end(self, batch: int, logs: dict) -> None:
        if time.monotonic() - self.last > self.seconds:
            self.save()
            self.last = time.monotonic()


class Interrupted(Exception):
    """A signal came while nothing could be saved yet."""


class StopOnSignal(tf.keras.callbacks.Callback):
    """Ctrl-C or SIGTERM ends training after a step; a second one ends it at once. Use as a context manager.

    Attributes
    ----------
    signal : the number of the signal that came, None before
    flag : the same for the training step, which tells the other workers: 0 or 1
    agreed : whether a step has told all workers to stop
    """

    def __init__(self) -> None:
        super().__init__()
        self.signal: int | None = None
        self.agreed = False
        self.flag = tf.Variable(0, dtype=tf.int32, trainable=False)
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> StopOnSignal:
        self.signal, self.agreed = None, False
        if threading.current_thread() is threading.main_thread():  # no other may set handlers
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(self, *exception: Any) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.signal = number
        self.__exit__()

    def check(self) -> None:
        """Raise `Interrupted` if a signal came."""
        if self.signal is not None:
            raise Interrupted

    def on_train_batch_begin(self, batch: int, logs: dict | None = None) -> None:
        self.flag.assign(0 if self.signal is None else 1)

    def on_train_batch_end(self, batch: int, logs: dict) -> None:
        if logs["stop"]:
            self.agreed = True
            self.signal = self.signal or signal.SIGTERM  # it came to another worker
            self.model.stop_training = True
