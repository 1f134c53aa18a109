"""SchNet: Schuett et al., "SchNet: A continuous-filter convolutional neural network", 2017, in a simple form."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from dimenet_tf.basis import GaussianBasis
from dimenet_tf.graph import Graph
from dimenet_tf.layers.dense import ResidualLayer, dense, linear
from dimenet_tf.layers.embedding import AtomEmbedding
from dimenet_tf.layers.gathers import gather, segment_sum
from dimenet_tf.layers.geometry import edge_vectors, safe_norm
from dimenet_tf.layers.initializers import seed_stream
from dimenet_tf.layers.output import AtomOutputs, atom_outputs
from dimenet_tf.models.hyperparameters import Hyperparameters


@tf.keras.utils.register_keras_serializable("dimenet_tf")
class SchNet(Hyperparameters, tf.keras.Model):
    """SchNet. `model(graph)` returns `AtomOutputs` with scalars (atoms, num_targets).

    Parameters
    ----------
    emb_size : int
        Size of the atom embeddings.
    num_blocks : int
        Interaction blocks.
    num_radial : int
        Gaussians in which distances are expanded.
    cutoff : float
        Distance up to which atoms are neighbors, Angstrom.
    num_targets : int
        Properties predicted at once.
    extensive : bool
        Properties are sums over atoms; False for means.
    seed : int
        Seed of the initial weights.
    """

    small = {"emb_size": 8, "num_blocks": 2, "num_radial": 8}

    def __init__(
        self,
        emb_size: int = 64,
        num_blocks: int = 3,
        num_radial: int = 32,
        cutoff: float = 5.0,
        num_targets: int = 1,
        extensive: bool = True,
        seed: int = 42,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.set_hyperparameters(locals())
        policy, seeds = self.dtype_policy, seed_stream(seed)  # the policy may be mixed_bfloat16
        self.rbf_layer = GaussianBasis(num_radial, cutoff, dtype=self.dtype)
        self.embedding = AtomEmbedding(emb_size, next(seeds), dtype=self.dtype)
        self.filters = [linear(emb_size, next(seeds), dtype=self.dtype) for _ in range(num_blocks)]
        self.int_blocks = [ResidualLayer(emb_size, next(seeds), dtype=policy) for _ in range(num_blocks)]
        self.hidden = dense(emb_size, next(seeds), dtype=self.dtype)
        self.output_layer = linear(num_targets, next(seeds), dtype=self.dtype)

    def call(self, graph: Graph) -> AtomOutputs:
        rbf = self.rbf_layer(safe_norm(edge_vectors(graph)))  # (edges, num_radial)
        h = self.embedding(graph.atomic_numbers)  # (atoms, emb_size)
        for filters, update in zip(self.filters, self.int_blocks):
            messages = filters(rbf) * gather(h, graph.edge_source)  # (edges, emb_size)
            h = update(h + segment_sum(messages, graph.edge_target, tf.shape(h)[0]))
        return atom_outputs(self.output_layer(self.hidden(h)))
