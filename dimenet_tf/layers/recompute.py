"""Memory for time: parts of a model that are computed again in the backward pass instead of being kept."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf


def run(function: Callable, *tensors: tf.Tensor, again: bool) -> tf.Tensor:
    """Return function(*tensors); with `again` nothing but the tensors is kept for the backward pass.

    The function may use variables and whatever else it likes, but gradients flow to `tensors` and variables only.
    Unlike `tf.recompute_grad`, the gradient can be differentiated again: forces can be trained.
    """
    if not again:
        return function(*tensors)

    @tf.custom_gradient
    def once(*tensors):
        def gradient(upstream, variables=None):
            # not before the backward pass is here: TensorFlow would start at once
            with tf.control_dependencies([upstream]):
                inputs = [tf.identity(tensor) for tensor in tensors]
            with tf.GradientTape() as tape:
                tape.watch(inputs)
                result = function(*inputs)
            sources = [*inputs, *(variables or [])]
            gradients = tape.gradient(result, sources, upstream, unconnected_gradients="zero")
            of_inputs, of_variables = gradients[: len(inputs)], gradients[len(inputs) :]
            return of_inputs if variables is None else (of_inputs, of_variables)

        return function(*tensors), gradient

    return once(*tensors)
