"""AMSGrad with weight decay, and an average of the weights. The only file that knows TensorFlow Addons."""

from __future__ import annotations

import warnings

import tensorflow as tf

KEPT = ("embeddings", "bias", "frequencies")  # weights that do not decay (GemNet, App. F)


class AdamW(tf.keras.optimizers.legacy.Adam):
    """AMSGrad, and each step takes a share of the weights away (Loshchilov, Hutter, ICLR 2019, Alg. 2).

    TFA's class of this name finds the weights that do not decay neither inside `MovingAverage` nor under
    `MirroredStrategy`.
    """

    def __init__(
        self,
        learning_rate: tf.keras.optimizers.schedules.LearningRateSchedule,
        weight_decay: tf.keras.optimizers.schedules.LearningRateSchedule,
    ) -> None:
        super().__init__(learning_rate, amsgrad=True)
        self.weight_decay = weight_decay

    def _resource_apply_dense(self, grad: tf.Tensor, var: tf.Variable, apply_state: dict | None = None) -> tf.Operation:
        if any(name in var.name for name in KEPT):
            return super()._resource_apply_dense(grad, var, apply_state)
        share = tf.cast(self.weight_decay(self.iterations), var.dtype)
        with tf.control_dependencies([var.assign_sub(share * var)]):
            return super()._resource_apply_dense(grad, var, apply_state)


def _moving_average() -> type:
    """Import TensorFlow Addons without its notices, of which a user can act on none."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from tensorflow_addons.optimizers import MovingAverage
    return MovingAverage


def make_optimizer(
    learning_rate: tf.keras.optimizers.schedules.LearningRateSchedule,
    ema_decay: float,
    weight_decay: tf.keras.optimizers.schedules.LearningRateSchedule | None = None,
) -> tf.keras.optimizers.Optimizer:
    """Return AMSGrad inside TFA's `MovingAverage`.

    The average's decay starts low and rises to `ema_decay` (after n updates it is at most (1 + n) / (10 + n)), so that
    it forgets the initial weights at once. Clip gradients before they come here: the wrapper would ignore the inner
    optimizer's clipping.

    Parameters
    ----------
    learning_rate : schedule
    ema_decay : float
    weight_decay : share of each weight that a step takes away, beside the gradient's (Loshchilov, Hutter, ICLR 2019)
    """
    # TFA 0.23 accepts the legacy optimizers only
    if weight_decay is None:
        inner = tf.keras.optimizers.legacy.Adam(learning_rate, amsgrad=True)
    else:
        inner = AdamW(learning_rate, weight_decay)
    return _moving_average()(inner, average_decay=ema_decay, dynamic_decay=True)


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
