"""Output blocks, and the outputs of a model."""

from __future__ import annotations

from typing import Any, NamedTuple

import tensorflow as tf

from dimenet_tf.graph import Graph
from dimenet_tf.layers.dense import dense, linear
from dimenet_tf.layers.gathers import segment_sum
from dimenet_tf.layers.initializers import output_initializer, seed_stream
from dimenet_tf.layers.recompute import run


class AtomOutputs(NamedTuple):
    """Outputs of a model: arrays with one row per atom."""

    scalars: tf.Tensor
    """(atoms, num_targets): each atom's contribution to every property, in the units of the weights."""
    vectors: tf.Tensor
    """(atoms, num_vectors, 3): rotation-equivariant vectors; num_vectors is 0 for models without vectors."""
    forces: tf.Tensor
    """(atoms, num_targets, 3): forces predicted without a gradient; no rows for models without direct forces."""
    dropped: tf.Tensor
    """(atoms,): number of neighbors that `max_neighbors` left out; no rows for models without such a limit."""


def atom_outputs(
    scalars: tf.Tensor,
    vectors: tf.Tensor | None = None,
    forces: tf.Tensor | None = None,
    dropped: tf.Tensor | None = None,
) -> AtomOutputs:
    """Build `AtomOutputs`, using empty arrays for missing outputs."""
    if vectors is None:
        vectors = tf.zeros([tf.shape(scalars)[0], 0, 3], scalars.dtype)
    if forces is None:
        forces = tf.zeros([0, scalars.shape[1], 3], scalars.dtype)
    if dropped is None:
        dropped = tf.zeros([0], scalars.dtype)
    return AtomOutputs(scalars, vectors, forces, dropped)


class OutputBlock(tf.keras.layers.Layer):
    """Dense layers on the sum of the incoming messages, weighted by the radial basis (DimeNet, Fig. 4).

    Parameters
    ----------
    emb_size : int, of the messages
    num_dense_output : int, dense layers before the last
    num_targets : int
    output_init : "GlorotOrthogonal" or "zeros", of the last layer
    seed : int
    out_emb_size : int or None
        Width of the dense layers where it differs from `emb_size`, reached by a linear projection (DimeNet++).
    up_bias : bool
        Whether that projection has a bias (SphereNet).
    recompute : bool, see `dimenet_tf.layers.recompute`
    """

    def __init__(
        self,
        emb_size: int,
        num_dense_output: int,
        num_targets: int,
        output_init: str,
        seed: int,
        out_emb_size: int | None = None,
        up_bias: bool = False,
        recompute: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.emb_size = emb_size
        self.num_dense_output = num_dense_output
        self.num_targets = num_targets
        self.output_init = output_init
        self.seed = seed
        self.out_emb_size = out_emb_size
        self.up_bias = up_bias
        self.recompute = recompute
        seeds = seed_stream(seed)
        self.dense_rbf = linear(emb_size, next(seeds), dtype=self.dtype_policy)
        self.up_projection = None
        if out_emb_size is not None:
            up = {"activation": None, "use_bias": up_bias, "dtype": self.dtype_policy}
            self.up_projection = dense(out_emb_size, next(seeds), **up)
        width = out_emb_size or emb_size
        self.dense_layers = [dense(width, next(seeds), dtype=self.dtype_policy) for _ in range(num_dense_output)]
        self.dense_final = tf.keras.layers.Dense(
            num_targets,
            use_bias=False,
            kernel_initializer=output_initializer(output_init, next(seeds)),
            dtype=self.dtype_policy,
        )

    def call(self, m: tf.Tensor, rbf: tf.Tensor, graph: Graph) -> tf.Tensor:
        def atoms(m: tf.Tensor, rbf: tf.Tensor) -> tf.Tensor:
            weighted = self.dense_rbf(rbf) * m  # (edges, emb_size)
            return segment_sum(weighted, graph.edge_target, tf.shape(graph.atomic_numbers)[0])

        h = run(atoms, m, rbf, again=self.recompute)  # (atoms, emb_size)
        if self.up_projection is not None:
            h = self.up_projection(h)  # (atoms, out_emb_size)
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
            "out_emb_size": self.out_emb_size,
            "up_bias": self.up_bias,
            "recompute": self.recompute,
        }


class SeparateOutputBlocks(tf.keras.layers.Layer):
    """One output block per target instead of one for all (DimeNet, Table 4).

    Arguments are those of `OutputBlock`.
    """

    def __init__(self, num_targets: int, seed: int, **kwargs: Any) -> None:
        layer_keys = {k: kwargs.pop(k) for k in ("name", "dtype", "trainable") if k in kwargs}
        super().__init__(**layer_keys)
        self.num_targets = num_targets
        self.seed = seed
        self.block_config = kwargs
        seeds = seed_stream(seed)
        self.blocks = [
            OutputBlock(num_targets=1, seed=next(seeds), dtype=self.dtype_policy, **kwargs) for _ in range(num_targets)
        ]

    def call(self, m: tf.Tensor, rbf: tf.Tensor, graph: Graph) -> tf.Tensor:
        return tf.concat([block(m, rbf, graph) for block in self.blocks], axis=-1)  # (atoms, num_targets)

    def get_config(self) -> dict:
        return {**super().get_config(), **self.block_config, "num_targets": self.num_targets, "seed": self.seed}
