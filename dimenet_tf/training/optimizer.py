"""AMSGrad with weight decay, and a moving average of the weights. The only file that knows TensorFlow Addons."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import Any

import tensorflow as tf

KEPT = ("embeddings", "bias", "frequencies")  # weights that do not decay (GemNet, App. F)


class AMSGrad(tf.keras.optimizers.legacy.Adam):
    """AMSGrad, also where XLA compiles it: XLA has no form of the single operation that Keras uses.

    Parameters
    ----------
    learning_rate : schedule
    jit_compile : whether the update is written in operations that XLA compiles; the same numbers, to rounding
    """

    def __init__(
        self, learning_rate: tf.keras.optimizers.schedules.LearningRateSchedule, jit_compile: bool = False
    ) -> None:
        super().__init__(learning_rate, amsgrad=True)
        self.jit_compile = jit_compile

    def _resource_apply_dense(self, grad: tf.Tensor, var: tf.Variable, apply_state: dict | None = None) -> tf.Operation:
        if not self.jit_compile:
            return super()._resource_apply_dense(grad, var, apply_state)
        known = (apply_state or {}).get((var.device, var.dtype.base_dtype))
        known = known or self._fallback_apply_state(var.device, var.dtype.base_dtype)
        m, v, largest = (self.get_slot(var, name) for name in ("m", "v", "vhat"))
        new_m = m + (grad - m) * known["one_minus_beta_1_t"]
        new_v = v + (grad * grad - v) * known["one_minus_beta_2_t"]
        new_largest = tf.maximum(largest, new_v)
        rate = known["lr_t"] * tf.sqrt(1 - known["beta_2_power"]) / (1 - known["beta_1_power"])
        step = rate * new_m / (tf.sqrt(new_largest) + known["epsilon"])
        return tf.group(m.assign(new_m), v.assign(new_v), largest.assign(new_largest), var.assign_sub(step))


class AdamW(AMSGrad):
    """AMSGrad with decoupled weight decay (Loshchilov, Hutter, ICLR 2019, Alg. 2, as PyTorch and Keras read it).

    Each step takes the share `weight_decay` times the learning rate from the weights. TFA's class of this name finds
    the weights that do not decay neither inside `MovingAverage` nor under `MirroredStrategy`.
    """

    def __init__(
        self,
        learning_rate: tf.keras.optimizers.schedules.LearningRateSchedule,
        weight_decay: float,
        jit_compile: bool = False,
    ) -> None:
        super().__init__(learning_rate, jit_compile)
        self.weight_decay = weight_decay

    def _resource_apply_dense(self, grad: tf.Tensor, var: tf.Variable, apply_state: dict | None = None) -> tf.Operation:
        if any(name in var.name for name in KEPT):
            return super()._resource_apply_dense(grad, var, apply_state)
        share = tf.cast(self.weight_decay * self.learning_rate(self.iterations), var.dtype)
        with tf.control_dependencies([var.assign_sub(share * var)]):
            return super()._resource_apply_dense(grad, var, apply_state)


class MovingAverage(tf.keras.optimizers.legacy.Optimizer):
    """Optimizer that keeps an average of the weights which another one updates.

    The same numbers and checkpoints as `tensorflow_addons.optimizers.MovingAverage` with `dynamic_decay`, of which
    there is none for TensorFlow 2.16 and later.

    Parameters
    ----------
    optimizer : a legacy optimizer of Keras
    average_decay : float
        After n updates the average's decay is (1 + n) / (10 + n), and at most this.
    """

    def __init__(self, optimizer: tf.keras.optimizers.legacy.Optimizer, average_decay: float) -> None:
        super().__init__("MovingAverage")
        self._optimizer = optimizer
        self._track_trackable(optimizer, "awg_optimizer")  # the name in checkpoints
        self.average_decay = average_decay

    def _create_slots(self, var_list: list[tf.Variable]) -> None:
        self._optimizer._create_slots(var_list=var_list)
        for variable in var_list:
            self.add_slot(variable, "average", variable.read_value())

    def _create_hypers(self) -> None:
        self._optimizer._create_hypers()

    def _prepare_local(self, var_device: str, var_dtype: tf.DType, apply_state: dict) -> None:
        self._optimizer._prepare_local(var_device, var_dtype, apply_state)
        updates = tf.cast(self.iterations, tf.float32)
        decay = tf.minimum(self.average_decay, (1 + updates) / (10 + updates))
        apply_state[(var_device, var_dtype)]["average_decay"] = decay

    def apply_gradients(self, grads_and_vars: Iterable, name: str | None = None, **kwargs: Any) -> tf.Operation:
        self._optimizer._iterations = self.iterations
        return super().apply_gradients(grads_and_vars, name, **kwargs)

    def _resource_apply_dense(self, grad: tf.Tensor, var: tf.Variable, apply_state: dict) -> tf.Operation:
        update = self._optimizer._resource_apply_dense(grad, var, apply_state=apply_state)
        with tf.control_dependencies([update]):
            average, decay = self.get_slot(var, "average"), apply_state[(var.device, var.dtype.base_dtype)]
            decay = tf.cast(decay["average_decay"], var.dtype)
            return tf.group(update, average.assign_sub((average - var) * (1 - decay)))

    def get_config(self) -> dict:
        optimizer = tf.keras.optimizers.serialize(self._optimizer)
        return {**super().get_config(), "optimizer": optimizer, "average_decay": self.average_decay}


def _addons() -> type | None:
    """Import `MovingAverage` of TensorFlow Addons without its notices, on which a user cannot act; None without it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            from tensorflow_addons.optimizers import MovingAverage
        except ImportError:
            return None
    return MovingAverage


def make_optimizer(
    learning_rate: tf.keras.optimizers.schedules.LearningRateSchedule,
    ema_decay: float,
    weight_decay: float = 0.0,
    jit_compile: bool = False,
) -> tf.keras.optimizers.legacy.Optimizer:
    """Return AMSGrad in a `MovingAverage`: that of TensorFlow Addons where it is installed, else the one above.

    The average's decay starts low and rises to `ema_decay` (after n updates it is at most (1 + n) / (10 + n)), so that
    it forgets the initial weights at once. Clip gradients before they come here: the wrapper would ignore the inner
    optimizer's clipping.

    Parameters
    ----------
    learning_rate : schedule
    ema_decay : float
    weight_decay : each step takes this times the learning rate from a weight, in addition to the gradient's step
    jit_compile : whether XLA compiles the update
    """
    inner = AdamW(learning_rate, weight_decay, jit_compile) if weight_decay else AMSGrad(learning_rate, jit_compile)
    addons = _addons()
    if addons is None:
        return MovingAverage(inner, ema_decay)
    return addons(inner, average_decay=ema_decay, dynamic_decay=True)


def create_optimizer_weights(optimizer: tf.keras.optimizers.Optimizer, variables: list[tf.Variable]) -> None:
    """Make moments and averages now: made inside the first traced step, they fail under `MirroredStrategy`."""
    # in eager mode Keras' legacy optimizers make the slots of both layers of the wrapper here
    optimizer._create_all_weights(variables)


def averaged_values(optimizer: tf.keras.optimizers.Optimizer, variables: list[tf.Variable]) -> list[tf.Tensor]:
    """Return the moving average of each variable."""
    return [tf.convert_to_tensor(optimizer.get_slot(variable, "average")) for variable in variables]


def steps_made(optimizer: tf.keras.optimizers.Optimizer) -> int:
    """Return how many updates the optimizer has made."""
    return int(tf.convert_to_tensor(optimizer.iterations))  # a mirrored variable is no number


def learning_rate(optimizer: tf.keras.optimizers.Optimizer) -> float:
    """Return the learning rate of the next step."""
    # not the inner optimizer's own count, which is 0 until the first step of a session
    return float(optimizer._optimizer.learning_rate(steps_made(optimizer)))
