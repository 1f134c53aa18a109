"""A model's weights by name: `int_blocks/0/dense_ji/kernel`. What is saved can be read without this library."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path

import h5py
import numpy as np
import tensorflow as tf

from dimenet_tf.errors import UserError


def named_variables(layer: tf.keras.layers.Layer) -> dict[str, tf.Variable]:
    """Return all variables of a layer or model under the attribute path that leads to them, sorted."""
    found: dict[str, tf.Variable] = {}

    def walk(value: object, path: str) -> None:
        if isinstance(value, tf.Variable):
            found[path] = value
        elif isinstance(value, tf.keras.layers.Layer):
            for name, child in vars(value).items():
                if not name.startswith("_"):
                    walk(child, f"{path}/{name}" if path else name)
        elif isinstance(value, (list, tuple)):
            for i, child in enumerate(value):
                walk(child, f"{path}/{i}")

    walk(layer, "")
    if len(found) != len(layer.variables):
        raise RuntimeError(f"{len(layer.variables)} variables in {layer.name}, but {len(found)} have a name")
    return dict(sorted(found.items()))


def assign_weights(layer: tf.keras.layers.Layer, values: Mapping[str, np.ndarray], source: str) -> None:
    """Set every weight of a layer; raise a UserError that names what is missing, unexpected or misshapen."""
    variables = named_variables(layer)
    missing, unexpected = sorted(set(variables) - set(values)), sorted(set(values) - set(variables))
    if missing:
        raise UserError(f"{source}: no weight '{missing[0]}' ({len(missing)} are missing); is this another model?")
    if unexpected:
        raise UserError(
            f"{source}: unexpected weight '{unexpected[0]}' ({len(unexpected)} such); is this another model?"
        )
    for name, variable in variables.items():
        if values[name].shape != tuple(variable.shape):
            raise UserError(
                f"{source}: weight '{name}' has shape {values[name].shape}, expected {tuple(variable.shape)}"
            )
    for name, variable in variables.items():
        variable.assign(tf.cast(values[name], variable.dtype))


def save_weights(layer: tf.keras.layers.Layer, path: str | Path) -> None:
    """Write all weights to an HDF5 file, one data set each."""
    memory = io.BytesIO()  # a full disk makes HDF5 end the process, but Python raise an error
    with h5py.File(memory, "w") as file:
        for name, variable in named_variables(layer).items():
            file[name] = variable.numpy()
    Path(path).write_bytes(memory.getvalue())


def load_weights(layer: tf.keras.layers.Layer, path: str | Path) -> None:
    """Read what `save_weights` wrote."""
    values = {}
    try:
        with h5py.File(path, "r") as file:
            file.visititems(
                lambda name, item: values.update({name: item[()]} if isinstance(item, h5py.Dataset) else {})
            )
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error})") from None
    assign_weights(layer, values, str(path))
