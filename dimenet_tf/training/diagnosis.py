"""Search for the first value that is not finite."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import tensorflow as tf

from dimenet_tf.graph import Graph
from dimenet_tf.predictor import Predictor
from dimenet_tf.predictor.weights import named_variables

FINITE = "predictions and their gradients are finite: look at the labels of these molecules"


def first_not_finite(predictor: Predictor, graph: Graph) -> str:
    """Compute a batch once more, layer by layer, and report where it goes wrong.

    Returns
    -------
    A phrase: the first weight, layer or property that is not finite; or the first weight whose gradient of the
    predictions is not.
    """
    variables = named_variables(predictor.model)
    for name, variable in variables.items():
        if not finite(variable):
            return f"weight {name} is not finite"
    first: list[str] = []
    layers = dict(named_layers(predictor.model, ""))
    for name, layer in layers.items():
        layer.call = watched(layer.call, name, first)
    try:
        with tf.GradientTape() as tape:
            prediction = predictor.compute(graph)
            total = tf.reduce_sum(prediction.values) + tf.cast(tf.reduce_sum(prediction.forces), tf.float64)
    finally:
        for layer in layers.values():
            del layer.call  # the class's is back
    if first:
        return f"the first layer whose output is not finite is {first[0]}"
    for what in ("values", "forces"):
        if not finite(getattr(prediction, what)):
            return f"all layers are finite, but the {what} are not"
    gradients = tape.gradient(total, variables, unconnected_gradients="zero")
    for name, gradient in gradients.items():
        if not finite(tf.convert_to_tensor(gradient)):
            return f"the predictions are finite, but their gradient by {name} is not"
    return FINITE


def finite(x: tf.Tensor) -> bool:
    return bool(tf.reduce_all(tf.math.is_finite(x)))


def named_layers(value: object, path: str) -> Iterator[tuple[str, tf.keras.layers.Layer]]:
    """Yield all layers below one under the attribute path that leads to them (as `named_variables`)."""
    if isinstance(value, tf.keras.layers.Layer):
        for name, child in vars(value).items():
            if not name.startswith("_"):
                yield from named_layers(child, f"{path}/{name}" if path else name)
        if path:
            yield path, value
    elif isinstance(value, (list, tuple)):
        for i, child in enumerate(value):
            yield from named_layers(child, f"{path}/{i}")


def watched(call: Callable, name: str, first: list[str]) -> Callable:
    """Return a layer's call that notes the layer's name if nothing was noted before and its output is not finite."""

    def checked(*args: Any, **kwargs: Any) -> Any:
        result = call(*args, **kwargs)
        floats = [x for x in tf.nest.flatten(result) if isinstance(x, tf.Tensor) and x.dtype.is_floating]
        if not first and not all(map(finite, floats)):
            first.append(name)
        return result

    return checked
