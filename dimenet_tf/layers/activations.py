"""Activations that a training step stores for its backward pass, counted for memory estimates."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from dimenet_tf.graph import Graph, graph_signature

VIEWS = (
    "ExpandDims",
    "Identity",
    "IdentityN",
    "Reshape",
    "Squeeze",
    "StopGradient",
)  # use the memory of their input
NOT_ACTIVATIONS = ("Const", "Placeholder", "ReadVariableOp")


def dense_activations(block: tf.keras.layers.Layer) -> int:
    """Estimate the numbers that one row stores in all dense layers of a block: input, sigmoid and output of each."""
    return sum(3 * layer.units for layer in (block, *block.submodules) if isinstance(layer, tf.keras.layers.Dense))


def activation_counter(model: tf.keras.Model) -> Callable[[Graph], tf.Tensor]:
    """Return a function that counts the numbers that a training step without forces stores for its backward pass.

    The step is traced once. For a graph that the model made, the function adds the sizes of all arrays of the forward
    pass to which the backward pass refers, even if it needs only the shape. This makes up for temporary arrays.
    """

    @tf.function(input_signature=[graph_signature(model.dtype, model.needs)], autograph=False)
    def stored(graph: Graph) -> tf.Tensor:
        operations = tf.compat.v1.get_default_graph().get_operations
        with tf.GradientTape() as tape:
            loss = sum(tf.reduce_sum(outputs) for outputs in model(graph))
        forward = {operation.name for operation in operations()}
        tape.gradient(loss, model.trainable_variables)
        arrays = {
            _without_views(array).ref()
            for operation in operations()
            if operation.name not in forward
            for array in operation.inputs
            if array.op.name in forward and array.dtype.is_floating
        }
        sizes = [tf.size(array.deref(), tf.int64) for array in arrays if array.deref().op.type not in NOT_ACTIVATIONS]
        return tf.add_n(sizes)

    return stored


def _without_views(array: tf.Tensor) -> tf.Tensor:
    while array.op.type in VIEWS:
        array = array.op.inputs[array.value_index if array.op.type == "IdentityN" else 0]
    return array


def cluster(neighbors: int, cutoff: float) -> np.ndarray:
    """Return positions of atoms with a given number of neighbors: random points in a ball, (neighbors + 1, 3)."""
    rng = np.random.default_rng(0)
    directions = rng.standard_normal((neighbors + 1, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    return 0.49 * cutoff * directions * rng.uniform(size=(neighbors + 1, 1)) ** (1 / 3)
