"""Properties of several shapes in one array."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import tensorflow as tf


class Columns:
    """Properties side by side: one column of a number, three of a vector, nine of a tensor, row after row.

    Parameters
    ----------
    shapes : of one molecule's value of each property, by name and in order: (), (3,) or (3, 3)
    """

    def __init__(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        self.shapes = dict(shapes)
        sizes = [int(np.prod(shape)) for shape in self.shapes.values()]
        ends = np.cumsum(sizes).tolist()
        self.width = sum(sizes)
        self._slices = {name: slice(end - size, end) for name, size, end in zip(self.shapes, sizes, ends)}

    def __getitem__(self, name: str) -> slice:
        """Return the columns of a property."""
        return self._slices[name]

    def split(self, array: np.ndarray | tf.Tensor) -> dict:
        """(rows, width) -> each property by name, (rows, *shape); NumPy or TensorFlow, as the array."""
        reshape = np.reshape if isinstance(array, np.ndarray) else tf.reshape
        return {name: reshape(array[:, self[name]], [-1, *shape]) for name, shape in self.shapes.items()}

    def join(self, values: Mapping) -> np.ndarray | tf.Tensor:
        """Each property by name, (rows, *shape) -> (rows, width); NumPy or TensorFlow, as the arrays."""
        arrays = [values[name] for name in self.shapes]
        if all(isinstance(array, np.ndarray) for array in arrays):
            return np.concatenate([array.reshape(len(array), -1) for array in arrays], axis=1)
        sizes = [part.stop - part.start for part in self._slices.values()]
        return tf.concat([tf.reshape(array, [-1, size]) for array, size in zip(arrays, sizes)], axis=1)
