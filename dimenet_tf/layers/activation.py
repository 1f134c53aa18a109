"""Swish with custom derivatives."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf


@tf.keras.utils.register_keras_serializable("dimenet_tf")
def swish(x: tf.Tensor) -> tf.Tensor:
    """Activation function x sigmoid(x), any shape.

    TensorFlow's gradient computes the sigmoid again and, in training with forces, differentiates every factor of the
    first derivative. Here the sigmoid is computed once for the function and two derivatives.
    """
    if x.dtype == tf.bfloat16:  # its sigmoid is slower than two casts and has two digits
        return tf.cast(swish(tf.cast(x, tf.float32)), x.dtype)
    # constants to TensorFlow: gradients flow only through the three functions below
    s = tf.stop_gradient(tf.sigmoid(x))
    y = tf.stop_gradient(x * s)

    @tf.custom_gradient
    def value(x: tf.Tensor) -> tuple[tf.Tensor, Callable]:
        return tf.identity(y), lambda upstream: upstream * slope(x)

    @tf.custom_gradient
    def slope(x: tf.Tensor) -> tuple[tf.Tensor, Callable]:
        # SigmoidGrad(s, a) = a s (1 - s) in one pass
        return s + tf.raw_ops.SigmoidGrad(y=s, dy=x), lambda upstream: upstream * curvature(x)

    @tf.custom_gradient
    def curvature(x: tf.Tensor) -> tuple[tf.Tensor, Callable]:
        return tf.raw_ops.SigmoidGrad(y=s, dy=2 + (x - 2 * y)), lambda upstream: upstream * third(x)

    def third(x: tf.Tensor) -> tuple[tf.Tensor, Callable]:
        s = tf.sigmoid(x)  # a function of x that TensorFlow differentiates further
        return s * (1 - s) * (3 - 6 * s + x * (1 - 6 * s + 6 * s * s))

    return value(x)
