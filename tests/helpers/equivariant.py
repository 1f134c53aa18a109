"""The smallest model with vectors: sums over neighbors and one dense layer."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from dimenet_tf.basis.radial import BesselBasis
from dimenet_tf.layers.dense import dense, linear
from dimenet_tf.layers.gathers import segment_sum
from dimenet_tf.layers.geometry import edge_vectors, safe_norm, unit_vectors
from dimenet_tf.layers.initializers import seed_stream
from dimenet_tf.layers.output import atom_outputs
from dimenet_tf.models.hyperparameters import Hyperparameters
from dimenet_tf.predictor import Predictor
from dimenet_tf.properties.heads import HEADS, Head
from helpers.models import SMALL, randomize

UNITS = {"energy": "eV", "mu": "D", "dipole": "e*Ang", "polarizability": "a0^3", "r2": "a0^2"}
ALL_HEADS = {
    "energy": "sum",
    "dipole": "dipole",
    "mu": "dipole_magnitude",
    "polarizability": "polarizability",
    "r2": "spatial_extent",
}


@tf.keras.utils.register_keras_serializable("tests")
class Equivariant(Hyperparameters, tf.keras.Model):
    def __init__(self, emb_size=8, cutoff=5.0, num_targets=1, num_vectors=0, extensive=True, seed=42, **kwargs):
        super().__init__(**kwargs)
        self.set_hyperparameters(locals())
        seeds, policy = seed_stream(seed), {"dtype": self.dtype}
        self.rbf_layer = BesselBasis(emb_size, cutoff, **policy)
        self.embedding = tf.keras.layers.Embedding(95, emb_size, **policy)
        self.hidden = dense(emb_size, next(seeds), **policy)
        self.to_scalars = linear(num_targets, next(seeds), **policy)
        self.to_vectors = linear(num_vectors, next(seeds), **policy) if num_vectors else None

    def call(self, graph):
        edges, size = edge_vectors(graph), tf.shape(graph.atomic_numbers)[0]
        emb = self.embedding(graph.atomic_numbers)
        m = self.rbf_layer(safe_norm(edges)) * tf.gather(emb, graph.edge_source)  # (edges, emb_size)
        scalars = self.to_scalars(self.hidden(emb * segment_sum(m, graph.edge_target, size)))
        if self.to_vectors is None:
            return atom_outputs(scalars)
        directed = self.to_vectors(m)[:, :, None] * unit_vectors(edges)[:, None, :]  # (edges, num_vectors, 3)
        return atom_outputs(scalars, segment_sum(directed, graph.edge_target, size))

    def kept_per_edge(self, neighbors):
        return 10 * self.emb_size


def predictor_with(name="equivariant", heads=ALL_HEADS, energy="energy", dtype="float64") -> Predictor:
    """Predictor with random weights, in which each property has its own scale."""
    vectors = name == "equivariant"
    parts = []
    for k, (target, head) in enumerate(heads.items()):
        options = {"vector": vectors} if "dipole" in head else {}
        if HEADS[head].additive:
            options = {"per_element": np.linspace(-2, 3, 95), "offset": 0.5}
        parts.append(HEADS[head](target, UNITS[target], 1.5 + k, **options))
    head = Head(parts)
    hyperparameters = {"num_targets": len(head.scalars), **SMALL.get(name, {})}
    if vectors:
        hyperparameters["num_vectors"] = len(head.with_vector)
    predictor = Predictor(name, hyperparameters, head, [1, 6, 7, 8], dtype, energy)
    randomize(predictor.model)
    return predictor
