"""AMSGrad with an exponential moving average of the weights. The only file that knows TensorFlow Addons."""

from __future__ import annotations

import warnings

import tensorflow as tf


def _moving_average() -> type:
    """Import TensorFlow Addons without its notices, of which a user can act on none."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from tensorflow_addons.optimizers import MovingAverage
    return MovingAverage


def make_optimizer(schedule: tf.keras.optimizers.schedules.LearningRateSchedule, ema_decay: float):
    """Return AMSGrad inside TFA's `MovingAverage`.

    The average's decay starts low and rises to `ema_decay` (after n updates it is at most (1 + n) / (10 + n)), so that
    it forgets the initial weights at once. Clip gradients before they come here: the wrapper would ignore the inner
    optimizer's clipping.
    """
    # TFA 0.23 accepts the legacy optimizers only
    adam = tf.keras.optimizers.legacy.Adam(schedule, amsgrad=True)
    return _moving_average()(adam, average_decay=ema_decay, dynamic_decay=True)


def create_optimizer_weights(optimizer, variables: list[tf.Variable]) -> None:
    """Make moments and averages now: made inside the first traced step, they fail under `MirroredStrategy`."""
    # in eager mode Keras' legacy optimizers make the slots of both layers of the wrapper here
    optimizer._create_all_weights(variables)


def averaged_values(optimizer, variables: list[tf.Variable]) -> list[tf.Tensor]:
    """Return the moving average of each variable."""
    return [tf.convert_to_tensor(optimizer.get_slot(variable, "average")) for variable in variables]


def steps_made(optimizer) -> int:
    """Return how many updates the optimizer has made."""
    return int(tf.convert_to_tensor(optimizer.iterations))  # a mirrored variable is no number


def learning_rate(optimizer) -> float:
    """Return the learning rate of the next step."""
    return float(optimizer._optimizer._decayed_lr(tf.float32))
