"""Embeddings of atoms, and the first messages of edges."""

from __future__ import annotations

import math
from typing import Any

import tensorflow as tf

from dimenet_tf.graph import Graph
from dimenet_tf.layers.dense import dense, linear
from dimenet_tf.layers.gathers import gather
from dimenet_tf.layers.initializers import seed_stream
from dimenet_tf.layers.recompute import run

NUM_ELEMENTS = 95  # rows of the embedding table: padding (0) and the elements 1 ... 94


def atom_embeddings(layer: tf.keras.layers.Layer, emb_size: int, seed: int) -> tf.Variable:
    """Add the table of atom embeddings, (95, emb_size), uniform in +-sqrt(3), to a layer."""
    limit = math.sqrt(3)
    uniform = tf.keras.initializers.RandomUniform(-limit, limit, seed=seed)
    shape = [NUM_ELEMENTS, emb_size]
    return layer.add_weight("embeddings", shape=shape, initializer=uniform, experimental_autocast=False)


class AtomEmbedding(tf.keras.layers.Layer):
    """Embedding of atomic numbers, (atoms,) -> (atoms, units)."""

    def __init__(self, units: int, seed: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.embeddings = atom_embeddings(self, units, seed)

    def call(self, atomic_numbers: tf.Tensor) -> tf.Tensor:
        return tf.gather(self.embeddings, atomic_numbers)


class EmbeddingBlock(tf.keras.layers.Layer):
    """First messages m_ji = swish(W [h_i, h_j, rbf_ji] + b), DimeNet Eq. 9 and Fig. 4.

    Parameters
    ----------
    emb_size : int
    activate_rbf : bool
        Pass the radial basis through a dense layer with bias and swish (the release) instead of a linear one.
    seed : int
    recompute : bool, see `dimenet_tf.layers.recompute`
    """

    def __init__(self, emb_size: int, activate_rbf: bool, seed: int, recompute: bool = False, **kwargs: Any) -> None:
        super().__init__(autocast=False, **kwargs)
        self.emb_size = emb_size
        self.activate_rbf = activate_rbf
        self.seed = seed
        self.recompute = recompute
        seeds = seed_stream(seed)
        self._embedding_seed = next(seeds)
        make = dense if activate_rbf else linear
        self.dense_rbf = make(emb_size, next(seeds), dtype=self.dtype)
        self.dense = dense(emb_size, next(seeds), dtype=self.dtype_policy)

    def build(self, input_shape: tf.TensorShape) -> None:
        self.embeddings = atom_embeddings(self, self.emb_size, self._embedding_seed)
        super().build(input_shape)

    def atoms(self, graph: Graph) -> tf.Tensor:
        return tf.gather(self.embeddings, graph.atomic_numbers)  # (atoms, emb_size)

    def call(self, rbf: tf.Tensor, graph: Graph) -> tf.Tensor:
        def first_messages(rbf: tf.Tensor) -> tf.Tensor:
            h = self.atoms(graph)
            h_i = gather(h, graph.edge_target)  # (edges, emb_size)
            h_j = gather(h, graph.edge_source)
            m = self.dense(tf.concat([h_i, h_j, self.dense_rbf(rbf)], axis=-1))  # (edges, emb_size)
            return tf.cast(m, rbf.dtype)

        return run(first_messages, rbf, again=self.recompute)

    def get_config(self) -> dict:
        return {
            **super().get_config(),
            "emb_size": self.emb_size,
            "activate_rbf": self.activate_rbf,
            "seed": self.seed,
            "recompute": self.recompute,
        }
