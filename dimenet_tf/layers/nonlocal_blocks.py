"""Non-local blocks of DPGN, which exchange features of atoms up to a global cutoff, and its P-blocks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import tensorflow as tf

from dimenet_tf.graph import Graph
from dimenet_tf.layers.dense import dense, linear
from dimenet_tf.layers.gathers import gather, segment_sum
from dimenet_tf.layers.initializers import seed_stream


class GlobalEdges(NamedTuple):
    """All pairs of atoms up to the global cutoff."""

    source: tf.Tensor
    """(global edges,) int32."""
    target: tf.Tensor
    """(global edges,) int32."""
    rbf: tf.Tensor
    """(global edges, num_radial)."""


def projections(
    basis_emb_size: int, units: int, seeds: Iterator[int], dtype: tf.keras.mixed_precision.Policy
) -> list[tf.keras.layers.Layer]:
    """Return a linear map to a smaller size and one back, LB2 of Fig. 4."""
    return [linear(basis_emb_size, next(seeds), dtype=dtype), linear(units, next(seeds), dtype=dtype)]


class NonLocalBlock(tf.keras.layers.Layer):
    """Update of the atoms by messages of local edges and by features exchanged over global edges.

    a_i = v_i + sum_j rbf_ji W W * m_ji                        (rho^(e -> v), Eq. 7)
    g_i = sum_j global rbf_ij W W * swish(W a_j + b)           (over all j up to the global cutoff)
    v'_i = swish(W [a_i, g_i] + b)                             (atoms, emb_size)

    Parameters
    ----------
    emb_size, int_emb_size, basis_emb_size, seed : int
    """

    def __init__(self, emb_size: int, int_emb_size: int, basis_emb_size: int, seed: int, **kwargs: Any) -> None:
        super().__init__(autocast=False, **kwargs)
        seeds, dtype = seed_stream(seed), self.dtype
        self.dense_rbf1, self.dense_rbf2 = projections(basis_emb_size, emb_size, seeds, dtype)
        self.dense_global1, self.dense_global2 = projections(basis_emb_size, int_emb_size, seeds, dtype)
        self.down_projection = dense(int_emb_size, next(seeds), dtype=dtype)
        self.unify = dense(emb_size, next(seeds), dtype=dtype)

    def call(self, v: tf.Tensor, m: tf.Tensor, rbf: tf.Tensor, far: GlobalEdges, graph: Graph) -> tf.Tensor:
        atoms = tf.shape(v)[0]
        a = v + segment_sum(self.dense_rbf2(self.dense_rbf1(rbf)) * m, graph.edge_target, atoms)  # (atoms, emb_size)
        a_j = gather(self.down_projection(a), far.source)  # (global edges, int_emb_size)
        g = segment_sum(self.dense_global2(self.dense_global1(far.rbf)) * a_j, far.target, atoms)
        return self.unify(tf.concat([a, g], axis=-1))


class Perceptron(tf.keras.layers.Layer):
    """Perceptron W2 swish(W1 x + b1) + b2 with `units` hidden units, (n, any) -> (n, units)."""

    def __init__(self, units: int, seed: int, **kwargs: Any) -> None:
        super().__init__(autocast=False, **kwargs)
        seeds, policy = seed_stream(seed), self.dtype_policy
        self.dense_1 = dense(units, next(seeds), dtype=policy)
        self.dense_2 = dense(units, next(seeds), activation=None, dtype=policy)

    def call(self, x: tf.Tensor) -> tf.Tensor:
        return self.dense_2(self.dense_1(x))


class PBlock(tf.keras.layers.Layer):
    """P-block x + W [m1(x) * m2(x), m3(x)] with perceptrons m1, m2, m3, (n, units) -> (n, units) (Sec. VI).

    Parameters
    ----------
    units, seed : int
    """

    def __init__(self, units: int, seed: int, **kwargs: Any) -> None:
        super().__init__(autocast=False, **kwargs)
        seeds, policy, half = seed_stream(seed), self.dtype_policy, units // 2
        self.m1 = Perceptron(half, next(seeds), dtype=policy)
        self.m2 = Perceptron(half, next(seeds), dtype=policy)
        self.m3 = Perceptron(units - half, next(seeds), dtype=policy)
        # products of features can be large, so training starts without them
        self.dense_out = tf.keras.layers.Dense(units, use_bias=False, kernel_initializer="zeros", dtype=policy)

    def call(self, x: tf.Tensor) -> tf.Tensor:
        features = tf.concat([self.m1(x) * self.m2(x), self.m3(x)], axis=-1)
        return x + tf.cast(self.dense_out(features), x.dtype)
