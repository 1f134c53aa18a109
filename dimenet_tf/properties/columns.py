"""Layout of arrays that hold several properties."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import tensorflow as tf


class Columns:
    """Columns of properties in one array: one for a number, three for a vector, nine for a tensor (row by row).

    Parameters
    ----------
    shapes : shape of one molecule's value of each property, by name and in order: (), (3,) or (3, 3)

    Examples
    --------
    >>> columns = Columns({"energy": (), "dipole": (3,)})
    >>> columns.width, columns["dipole"]
    (4, slice(1, 4, None))
    >>> columns.split(np.array([[-5.0, 0.1, 0.2, 0.3]]))["dipole"]
    array([[0.1, 0.2, 0.3]])
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
        """Split (rows, width) into the properties by name, (rows, *shape); NumPy or TensorFlow, as the input."""
        if isinstance(array, np.ndarray):
            return {name: array[:, self[name]].reshape(-1, *shape) for name, shape in self.shapes.items()}
        import tensorflow as tf  # data sets are made without it

        return {name: tf.reshape(array[:, self[name]], [-1, *shape]) for name, shape in self.shapes.items()}

    def join(self, values: Mapping) -> np.ndarray | tf.Tensor:
        """Join properties by name, (rows, *shape), to (rows, width); NumPy or TensorFlow, as the inputs."""
        arrays = [values[name] for name in self.shapes]
        if all(isinstance(array, np.ndarray) for array in arrays):
            return np.concatenate([array.reshape(len(array), -1) for array in arrays], axis=1)
        import tensorflow as tf

        sizes = [part.stop - part.start for part in self._slices.values()]
        return tf.concat([tf.reshape(array, [-1, size]) for array, size in zip(arrays, sizes)], axis=1)
