"""A predictor whose physics is known: a harmonic bond with charges and a polarizability."""

import numpy as np
import tensorflow as tf
from ase import Atoms
from scipy import constants

from dimenet_tf.predictor import Prediction, Predictor
from dimenet_tf.properties.heads import Dipole, Head, Polarizability, Sum


class Diatomic(Predictor):
    """A harmonic bond with charges at its ends and a polarizability that is linear in its length."""

    stiffness, length, charge = 30.0, 1.1, 0.4  # eV/Ang^2, Ang, e
    along, across = 3.0, 1.0  # a0^3/Ang

    def __init__(self):
        head = Head(
            [
                Sum("energy", "eV", 1.0, np.zeros(95)),
                Dipole("dipole", "e*Ang", 1.0, vector=True),
                Polarizability("polarizability", "a0^3", 1.0, np.zeros(95)),
            ]
        )
        sizes = {"emb_size": 4, "num_blocks": 1, "num_targets": 3, "num_vectors": 2}
        super().__init__("painn", sizes, head, [6, 8], "float64", energy="energy")

    def compute(self, graph):
        ends = tf.reshape(graph.positions, [-1, 2, 3])
        vectors = ends[:, 1] - ends[:, 0]
        lengths = tf.norm(vectors, axis=1, keepdims=True)
        u, stretch = vectors / lengths, lengths - self.length
        pull = self.stiffness * stretch * u
        axial = u[:, :, None] * u[:, None, :]
        tensors = stretch[:, :, None] * (self.across * tf.eye(3, dtype=u.dtype) + (self.along - self.across) * axial)
        values = [0.5 * self.stiffness * stretch**2, self.charge * vectors, tf.reshape(tensors, [-1, 9])]
        forces = tf.reshape(tf.stack([pull, -pull], axis=1), [-1, 3])
        shares = tf.zeros([tf.shape(forces)[0], self.head.columns.width], tf.float64)
        return Prediction(tf.concat(values, axis=1), shares, forces)

    def atoms(self):
        return Atoms("CO", [[0, 0, 0], [self.length / np.sqrt(2), 0, self.length / np.sqrt(2)]])

    def wavenumber(self):
        mass = np.prod(self.atoms().get_masses()) / self.atoms().get_masses().sum()
        return (
            np.sqrt(self.stiffness * constants.e / (mass * constants.atomic_mass)) * 1e10 / (2e2 * np.pi * constants.c)
        )
