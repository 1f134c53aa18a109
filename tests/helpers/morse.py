"""A predictor whose physics is known: copper atoms with a Morse potential that ends smoothly at the cutoff."""

import numpy as np
import tensorflow as tf

from dimenet_tf.layers.geometry import edge_vectors, safe_norm
from dimenet_tf.predictor import Prediction, Predictor
from dimenet_tf.predictor.property_model import strained, stress_of
from dimenet_tf.properties.heads import scalar_head


class Morse(Predictor):
    """Copper (Girifalco and Weizer, Phys. Rev. 114, 687, 1959), on request with a wrong stress.

    Parameters
    ----------
    dtype : str
    stress : float
        Factor of the stress; 1 is right
    """

    depth, width, length, cutoff = 0.3429, 1.3588, 2.866, 5.0  # eV, 1/Ang, Ang, Ang

    def __init__(self, dtype="float64", stress=1.0):
        head = scalar_head(["energy"], ["eV"], np.zeros((1, 95)), [0.0], [1.0])
        sizes = {"emb_size": 4, "num_blocks": 1, "cutoff": self.cutoff}
        super().__init__("painn", sizes, head, [29], dtype, energy="energy", periodic=True)
        self.stress = stress

    def compute(self, graph):
        positions, atoms = tf.convert_to_tensor(graph.positions), tf.shape(graph.atomic_numbers)[0]
        molecules = tf.shape(graph.num_atoms)[0]
        strain = tf.zeros([molecules, 3, 3], positions.dtype)
        with tf.GradientTape() as tape:
            tape.watch([positions, strain])
            graph = graph._replace(positions=positions)
            r = safe_norm(edge_vectors(strained(graph, strain) if graph.is_periodic else graph))
            x = tf.exp(-self.width * (r - self.length))
            pairs = self.depth * (x * x - 2 * x) * (1 - (r / self.cutoff) ** 2) ** 3
            shares = tf.math.unsorted_segment_sum(pairs / 2, graph.edge_target, atoms)
        gradient, virial = tape.gradient(shares, [positions, strain], unconnected_gradients="zero")
        shares = tf.cast(shares, tf.float64)[:, None]
        values = tf.math.unsorted_segment_sum(shares, graph.molecule_of_atom, molecules)
        stress = self.stress * stress_of(virial, graph.cell) if graph.is_periodic else ()
        return Prediction(values, shares, -tf.convert_to_tensor(gradient), stress)
