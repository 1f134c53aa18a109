"""GemNet triplet and quadruplet interaction layers (Sec. 4 and Fig. 3)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import tensorflow as tf

from dimenet_tf.graph import Graph
from dimenet_tf.layers.aggregation import Aggregation
from dimenet_tf.layers.gathers import reverse_edges
from dimenet_tf.layers.initializers import HeOrthogonal, seed_stream
from dimenet_tf.layers.quadruplets import Quadruplets
from dimenet_tf.layers.scaled import ScaleFactor, scaled_dense, scaled_sum


class Sizes(NamedTuple):
    """Sizes of embeddings: the hyperparameters of the same names."""

    emb_size_atom: int
    emb_size_edge: int
    emb_size_trip: int
    emb_size_quad: int
    emb_size_rbf: int
    emb_size_cbf: int
    emb_size_sbf: int
    emb_size_bil_trip: int
    emb_size_bil_quad: int


class TripletBasis(NamedTuple):
    """Basis functions of the messages b -> a -> c, shared by all blocks."""

    pairs: Aggregation
    y: tf.Tensor
    """Angle c-a-b, as `pairs.angular` returns it."""
    rbf: tf.Tensor
    """(edges, emb_size_rbf), distance of b -> a."""
    cbf: tf.Tensor
    """(edges, num_spherical, emb_size_cbf), radial part of the distance of c -> a."""


class QuadrupletBasis(NamedTuple):
    """Basis functions of the messages d -> b ... a <- c, shared by all blocks."""

    quadruplets: Quadruplets
    rbf: tf.Tensor
    """(edges, emb_size_rbf), distance of d -> b."""
    cbf: tf.Tensor
    """(a, b, d, emb_size_cbf), distance a-b and angle a-b-d."""
    sbf: tf.Tensor
    """(edges, num_spherical^2, emb_size_sbf), radial part of the distance of c -> a."""


class EfficientBilinear(tf.keras.layers.Layer):
    """Bilinear layer sum_bf W_fbo x_bf on sums over neighbors, the last step of App. C.

    (edges, b, f) -> (edges, units)
    """

    def __init__(self, units: int, seed: int, **kwargs: Any) -> None:
        super().__init__(autocast=False, **kwargs)
        self.units = units
        self.seed = seed

    def build(self, input_shape: tf.TensorShape) -> None:
        _, b, f = input_shape
        self.kernel = self.add_weight("kernel", shape=[f, b, self.units], initializer=HeOrthogonal(self.seed))
        super().build(input_shape)

    def call(self, x: tf.Tensor) -> tf.Tensor:
        _, b, f = x.shape
        kernel = tf.reshape(tf.transpose(self.kernel, [1, 0, 2]), [b * f, self.units])
        return tf.reshape(x, [-1, b * f]) @ kernel


class SymmetricUpProjection(tf.keras.layers.Layer):
    """Message of an edge from its own sum and its reverse's: (D x_ca + D' x_ac) / sqrt(2) (Sec. 5)."""

    def __init__(self, units: int, seeds: Iterator[int], **kwargs: Any) -> None:
        super().__init__(autocast=False, **kwargs)
        self.ca = scaled_dense(units, next(seeds), dtype=self.dtype_policy)
        self.ac = scaled_dense(units, next(seeds), dtype=self.dtype_policy)

    def call(self, x: tf.Tensor, graph: Graph) -> tf.Tensor:
        return scaled_sum(self.ca(x), reverse_edges(self.ac(x), graph.edge_reverse))


class TripletInteraction(tf.keras.layers.Layer):
    """One-hop message passing (Fig. 3): messages b -> a into messages c -> a, with distances and angle c-a-b."""

    def __init__(self, sizes: Sizes, seed: int, **kwargs: Any) -> None:
        super().__init__(autocast=False, **kwargs)
        policy, seeds = self.dtype_policy, seed_stream(seed)
        emb_size_edge = sizes.emb_size_edge
        self.dense_ba = scaled_dense(emb_size_edge, next(seeds), dtype=policy)
        self.mlp_rbf = scaled_dense(emb_size_edge, next(seeds), None, dtype=policy)
        self.scale_rbf = ScaleFactor(dtype=policy)
        self.down_projection = scaled_dense(sizes.emb_size_trip, next(seeds), dtype=policy)
        self.mlp_cbf = EfficientBilinear(sizes.emb_size_bil_trip, next(seeds), dtype=policy)
        self.scale_cbf_sum = ScaleFactor(dtype=policy)
        self.up_projection = SymmetricUpProjection(emb_size_edge, seeds, dtype=policy)

    def call(self, m: tf.Tensor, basis: TripletBasis, graph: Graph) -> tf.Tensor:
        x_ba = self.dense_ba(m)  # (edges, emb_size_edge)
        x_ba = self.scale_rbf(x_ba * self.mlp_rbf(basis.rbf), reference=x_ba)
        x_ba = self.down_projection(x_ba)  # (edges, emb_size_trip)
        x_ba = tf.cast(x_ba, m.dtype)
        x = basis.pairs.sum_outer(basis.y, x_ba, basis.cbf)  # sum over b, (edges, cbf, trip)
        x = self.scale_cbf_sum(self.mlp_cbf(x), reference=x_ba)  # (edges, emb_size_bil_trip)
        return self.up_projection(x, graph)


class QuadrupletInteraction(tf.keras.layers.Layer):
    """Two-hop message passing (Fig. 3): messages d -> b into messages c -> a, where a and b need no edge."""

    def __init__(self, sizes: Sizes, seed: int, **kwargs: Any) -> None:
        super().__init__(autocast=False, **kwargs)
        policy, seeds = self.dtype_policy, seed_stream(seed)
        emb_size_edge, emb_size_quad = sizes.emb_size_edge, sizes.emb_size_quad
        self.dense_db = scaled_dense(emb_size_edge, next(seeds), dtype=policy)
        self.mlp_rbf = scaled_dense(emb_size_edge, next(seeds), None, dtype=policy)
        self.scale_rbf = ScaleFactor(dtype=policy)
        self.down_projection = scaled_dense(emb_size_quad, next(seeds), dtype=policy)
        self.mlp_cbf = scaled_dense(emb_size_quad, next(seeds), None, dtype=policy)
        self.scale_cbf = ScaleFactor(dtype=policy)
        self.mlp_sbf = EfficientBilinear(sizes.emb_size_bil_quad, next(seeds), dtype=policy)
        self.scale_sbf_sum = ScaleFactor(dtype=policy)
        self.up_projection = SymmetricUpProjection(emb_size_edge, seeds, dtype=policy)

    def call(self, m: tf.Tensor, basis: QuadrupletBasis, graph: Graph) -> tf.Tensor:
        x_db = self.dense_db(m)  # (edges, emb_size_edge)
        x_db = self.scale_rbf(x_db * self.mlp_rbf(basis.rbf), reference=x_db)
        x_db = self.down_projection(x_db)  # (edges, emb_size_quad)
        x_abd = basis.quadruplets.to_paths(tf.cast(x_db, m.dtype))  # (a, b, d, emb_size_quad)
        x_abd = self.scale_cbf(x_abd * tf.cast(self.mlp_cbf(basis.cbf), m.dtype), reference=x_abd)
        x = basis.quadruplets.sum_outer(x_abd, basis.sbf)  # (edges, emb_size_sbf, emb_size_quad): sum over b and d
        x = self.scale_sbf_sum(self.mlp_sbf(x), reference=x_db)  # (edges, emb_size_bil_quad)
        return self.up_projection(x, graph)
