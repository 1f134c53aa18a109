"""Update of messages shared by the interaction blocks of DimeNet and the architectures built like it."""

from __future__ import annotations

from collections.abc import Iterator

import tensorflow as tf

from dimenet_tf.layers.activations import dense_activations
from dimenet_tf.layers.dense import ResidualLayer, dense
from dimenet_tf.layers.recompute import run


class SkipUpdate(tf.keras.layers.Layer):
    """The lower part of the interaction block in DimeNet, Fig. 4: residual layers, a skip connection, residual layers.

    A subclass computes y from the messages m and calls `self.update(m, y)`. With `self.recompute` both halves are
    computed again in the backward pass (see `dimenet_tf.layers.recompute`).
    """

    recompute = False

    def make_update(self, units: int, num_before_skip: int, num_after_skip: int, seeds: Iterator[int]) -> None:
        policy = self.dtype_policy
        self.layers_before_skip = [ResidualLayer(units, next(seeds), dtype=policy) for _ in range(num_before_skip)]
        self.final_before_skip = dense(units, next(seeds), dtype=policy)
        self.layers_after_skip = [ResidualLayer(units, next(seeds), dtype=policy) for _ in range(num_after_skip)]

    def update(self, m: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        def skip(m: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
            for layer in self.layers_before_skip:
                y = layer(y)
            m = m + tf.cast(self.final_before_skip(y), m.dtype)
            for layer in self.layers_after_skip:
                m = layer(m)
            return m

        return run(skip, m, y, again=self.recompute)


def stored_by_blocks(model: tf.keras.Model, pairs: float) -> float:
    """Estimate the numbers that a training step of DimeNet or DimeNet++ stores per edge.

    Parameters
    ----------
    model : with `emb_block`, `int_blocks` and `output_blocks`
    pairs : numbers per edge that the sum over neighbors stores in each interaction block
    """
    embedding, *blocks = (dense_activations(block) for block in (model.emb_block, *model.int_blocks))
    per_block = [embedding, *(block + pairs for block in blocks)]
    if model.recompute:  # one half of one block, and the messages between the halves
        return max(per_block) + 3 * model.emb_size * len(per_block)
    return sum(per_block) + 2 * model.emb_size * len(model.output_blocks)
