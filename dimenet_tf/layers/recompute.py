"""Recomputation of parts of a model in the backward pass, which saves memory and costs time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf


def run(function: Callable, *tensors: tf.Tensor, again: bool) -> Any:
    """Return function(*tensors). With `again`, only the tensors are stored for the backward pass.

    The function returns a tensor or a list of tensors. It may use variables and other objects, but gradients flow to
    `tensors` and variables only. Unlike that of `tf.recompute_grad`, the gradient can be differentiated, and is then
    computed again too, so training with forces saves memory as well.
    """
    if not again:
        return function(*tensors)

    @tf.custom_gradient
    def once(*tensors: Any) -> tuple[Any, Callable]:
        def gradient(*upstream: Any, variables: list[tf.Variable] | None = None) -> Any:
            def pull_back(*arrays: Any) -> list[tf.Tensor]:
                # depend on the upstream gradient: TensorFlow would otherwise start before the backward pass
                with tf.control_dependencies(arrays[len(tensors) :]):
                    inputs = [tf.identity(tensor) for tensor in arrays[: len(tensors)]]
                with tf.GradientTape() as tape:
                    tape.watch(inputs)
                    results = tf.nest.flatten(function(*inputs))
                sources = [*inputs, *(variables or [])]
                found = tape.gradient(results, sources, arrays[len(tensors) :], unconnected_gradients="zero")
                return [tf.convert_to_tensor(array) for array in found]

            found = run(pull_back, *tensors, *upstream, again=True)
            gradients, variable_gradients = found[: len(tensors)], found[len(tensors) :]
            return gradients if variables is None else (gradients, variable_gradients)

        return function(*tensors), gradient

    return once(*tensors)
