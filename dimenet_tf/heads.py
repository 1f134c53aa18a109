"""Per-atom features -> molecular properties with units."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from dimenet_tf.graph import Graph
from dimenet_tf.layers.output import AtomOutputs


class ScalarHead(tf.keras.layers.Layer):
    """Sum (or mean) of the atoms' scalars, scaled and offset by reference values, in float64.

    property = offset + sum_i per_element[Z_i] + scale * sum_i scalar_i. A molecule of -4000 eV has a float32 spacing of
    0.5 meV: sums and offsets are made in float64.

    Parameters
    ----------
    targets : names of the properties
    units : of each
    per_element : (targets, 95) float, reference value of each element
    offset, scale : (targets,) float
    extensive : bool, sum over atoms; mean where False (the references are summed in any case)
    """

    def __init__(
        self,
        targets: Sequence[str],
        units: Sequence[str],
        per_element: np.ndarray,
        offset: np.ndarray,
        scale: np.ndarray,
        extensive: bool = True,
        **kwargs,
    ) -> None:
        super().__init__(dtype="float64", autocast=False, **kwargs)  # Keras would cast the atoms' scalars to float32
        self.targets = list(targets)
        self.units = list(units)
        self.per_element = np.asarray(per_element, np.float64)
        self.offset = np.asarray(offset, np.float64)
        self.scale = np.asarray(scale, np.float64)
        self.extensive = extensive

    def call(self, outputs: AtomOutputs, graph: Graph) -> tuple[tf.Tensor, tf.Tensor]:
        """Return the properties (molecules, targets) and the atoms' shares in them (atoms, targets), float64."""
        size = tf.cast(tf.gather(graph.num_atoms, graph.molecule_of_atom), tf.float64)[
            :, None
        ]  # of the atom's molecule
        scalars = tf.cast(outputs.scalars, tf.float64)
        if not self.extensive:
            scalars /= size
        per_atom = tf.gather(tf.constant(self.per_element.T), graph.atomic_numbers) + self.scale * scalars
        total = tf.math.unsorted_segment_sum(per_atom, graph.molecule_of_atom, tf.shape(graph.num_atoms)[0])
        return self.offset + total, per_atom + self.offset / size

    def get_config(self) -> dict:
        return {
            "targets": self.targets,
            "units": self.units,
            "per_element": self.per_element.tolist(),
            "offset": self.offset.tolist(),
            "scale": self.scale.tolist(),
            "extensive": self.extensive,
        }
