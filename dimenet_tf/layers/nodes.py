"""Atom embeddings instead of message embeddings: the strongest ablation of DimeNet, Table 3.

The paper gives no formulas for it. Here every block is DimeNet's with an atom's embedding h_i in place of the message
m_ji and without angles. The interaction sums rbf-weighted embeddings of the neighbors instead of the bilinear layer's
result, and the output block has no sum over messages. All widths and depths are DimeNet's. The blocks take the same
arguments as those that they replace.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from dimenet_tf.graph import Graph
from dimenet_tf.layers.aggregation import Aggregation
from dimenet_tf.layers.dense import dense, linear
from dimenet_tf.layers.embedding import atom_embeddings
from dimenet_tf.layers.gathers import gather, segment_sum
from dimenet_tf.layers.initializers import output_initializer, seed_stream
from dimenet_tf.layers.interaction import SkipUpdate


class NodeEmbeddingBlock(tf.keras.layers.Layer):
    """Initial features of atoms: h_i = row of the embedding table, (atoms, emb_size)."""

    def __init__(self, emb_size: int, seed: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.emb_size = emb_size
        self.seed = seed

    def build(self, input_shape: tf.TensorShape) -> None:
        self.embeddings = atom_embeddings(self, self.emb_size, self.seed)
        super().build(input_shape)

    def call(self, rbf: tf.Tensor, graph: Graph) -> tf.Tensor:
        return tf.gather(self.embeddings, graph.atomic_numbers)

    def get_config(self) -> dict:
        return {**super().get_config(), "emb_size": self.emb_size, "seed": self.seed}


class NodeInteractionBlock(SkipUpdate):
    """Update of atoms from their neighbors, h_i <- update(h_i, sum_j rbf_ji W * swish(W h_j + b))."""

    def __init__(self, emb_size: int, num_before_skip: int, num_after_skip: int, seed: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.emb_size = emb_size
        self.num_before_skip = num_before_skip
        self.num_after_skip = num_after_skip
        self.seed = seed
        seeds = seed_stream(seed)
        self.dense_i = dense(emb_size, next(seeds), dtype=self.dtype_policy)
        self.dense_j = dense(emb_size, next(seeds), dtype=self.dtype_policy)
        self.dense_rbf = linear(emb_size, next(seeds), dtype=self.dtype_policy)
        self.make_update(emb_size, num_before_skip, num_after_skip, seeds)

    def call(
        self, h: tf.Tensor, rbf: tf.Tensor, radial: tf.Tensor, y: tf.Tensor, pairs: Aggregation, graph: Graph
    ) -> tf.Tensor:
        messages = self.dense_rbf(rbf) * gather(self.dense_j(h), graph.edge_source)  # (edges, emb_size)
        total = segment_sum(messages, graph.edge_target, tf.shape(h)[0])
        return self.update(h, self.dense_i(h) + total)  # (atoms, emb_size)

    def get_config(self) -> dict:
        return {
            **super().get_config(),
            "emb_size": self.emb_size,
            "num_before_skip": self.num_before_skip,
            "num_after_skip": self.num_after_skip,
            "seed": self.seed,
        }


class NodeOutputBlock(tf.keras.layers.Layer):
    """Dense layers on h_i, with the arguments of `OutputBlock`."""

    def __init__(
        self, emb_size: int, num_dense_output: int, num_targets: int, output_init: str, seed: int, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.emb_size = emb_size
        self.num_dense_output = num_dense_output
        self.num_targets = num_targets
        self.output_init = output_init
        self.seed = seed
        seeds = seed_stream(seed)
        self.dense_layers = [dense(emb_size, next(seeds), dtype=self.dtype_policy) for _ in range(num_dense_output)]
        self.dense_final = tf.keras.layers.Dense(
            num_targets,
            use_bias=False,
            kernel_initializer=output_initializer(output_init, next(seeds)),
            dtype=self.dtype_policy,
        )

    def call(self, h: tf.Tensor, rbf: tf.Tensor, graph: Graph) -> tf.Tensor:
        for layer in self.dense_layers:
            h = layer(h)
        return self.dense_final(h)  # (atoms, num_targets)

    def get_config(self) -> dict:
        return {
            **super().get_config(),
            "emb_size": self.emb_size,
            "num_dense_output": self.num_dense_output,
            "num_targets": self.num_targets,
            "output_init": self.output_init,
            "seed": self.seed,
        }
