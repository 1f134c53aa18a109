"""Messages of edges in GemNet: from atoms, triplets and quadruplets, and back to atoms (Sec. 4 and Fig. 3)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from dimenet_tf.graph import Graph
from dimenet_tf.layers.aggregation import Aggregation
from dimenet_tf.layers.gathers import gather, reverse_edges, segment_sum
from dimenet_tf.layers.initializers import HeOrthogonal, seed_stream
from dimenet_tf.layers.quadruplets import Quadruplets
from dimenet_tf.layers.scaled import (
    NORMALIZATIONS,
    ScaledResidual,
    passed_through,
    scaled_dense,
    scaled_sum,
    scaled_swish,
)


class Settings(NamedTuple):
    """Sizes of embeddings and ablations: the hyperparameters of the same names."""

    emb_size_atom: int
    emb_size_edge: int
    emb_size_trip: int
    emb_size_quad: int
    emb_size_rbf: int
    emb_size_cbf: int
    emb_size_sbf: int
    emb_size_bil_trip: int
    emb_size_bil_quad: int
    symmetric: bool
    bilinear: bool
    normalization: str
    bias: bool

    def dense(
        self, units: int, seed: int, activation: Callable | None = scaled_swish, **kwargs: Any
    ) -> tf.keras.layers.Dense:
        """Return a dense layer on embeddings.

        Layers on basis functions, and on messages that a basis makes vanish at the cutoff, are `scaled_dense`: with a
        bias they would not vanish.
        """
        return scaled_dense(units, seed, activation, use_bias=self.bias, **kwargs)

    def residuals(
        self, count: int, units: int, seeds: Iterator[int], dtype: tf.keras.mixed_precision.Policy
    ) -> list[ScaledResidual]:
        """Return a stack of residual layers."""
        return [ScaledResidual(units, next(seeds), self.bias, dtype=dtype) for _ in range(count)]

    def scale(self, **kwargs: Any) -> tf.keras.layers.Layer:
        """Return a layer that keeps the variance; it is called with its input and a reference."""
        return NORMALIZATIONS[self.normalization](**kwargs)

    def mix(self, units: int, seed: int, **kwargs: Any) -> tf.keras.layers.Layer:
        """Return the layer on sums over neighbors of basis times message."""
        return EfficientBilinear(units, seed, **kwargs) if self.bilinear else HadamardProduct(seed, **kwargs)


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

    def filters(self) -> np.ndarray:
        """Return the weights of the first feature of the messages, (b, units)."""
        return self.kernel.numpy()[0]


class HadamardProduct(tf.keras.layers.Layer):
    """Hadamard product of basis and message, sum_b W_bf x_bf on sums over neighbors (Table 4).

    (edges, b, f) -> (edges, f)
    """

    def __init__(self, seed: int, **kwargs: Any) -> None:
        super().__init__(autocast=False, **kwargs)
        self.seed = seed

    def build(self, input_shape: tf.TensorShape) -> None:
        self.kernel = self.add_weight("kernel", shape=input_shape[1:], initializer=HeOrthogonal(self.seed))
        super().build(input_shape)

    def call(self, x: tf.Tensor) -> tf.Tensor:
        return tf.reduce_sum(x * tf.cast(self.kernel, x.dtype), axis=1)

    def filters(self) -> np.ndarray:
        """Return the weights, (b, f)."""
        return self.kernel.numpy()


class UpProjection(tf.keras.layers.Layer):
    """Message of an edge from its own sum and its reverse's: (D x_ca + D' x_ac) / sqrt(2) (Sec. 5).

    Without symmetric message passing, D x_ca.
    """

    def __init__(self, units: int, settings: Settings, seeds: Iterator[int], **kwargs: Any) -> None:
        super().__init__(autocast=False, **kwargs)
        self.ca = settings.dense(units, next(seeds), dtype=self.dtype_policy)
        self.ac = settings.dense(units, next(seeds), dtype=self.dtype_policy) if settings.symmetric else None

    def call(self, x: tf.Tensor, graph: Graph) -> tf.Tensor:
        if self.ac is None:
            return self.ca(x)
        return scaled_sum(self.ca(x), reverse_edges(self.ac(x), graph.edge_reverse))


class TripletInteraction(tf.keras.layers.Layer):
    """One-hop message passing (Fig. 3): messages b -> a into messages c -> a, with distances and angle c-a-b."""

    def __init__(self, settings: Settings, seed: int, **kwargs: Any) -> None:
        super().__init__(autocast=False, **kwargs)
        policy, seeds = self.dtype_policy, seed_stream(seed)
        emb_size_edge = settings.emb_size_edge
        self.dense_ba = settings.dense(emb_size_edge, next(seeds), dtype=policy)
        self.mlp_rbf = scaled_dense(emb_size_edge, next(seeds), None, dtype=policy)
        self.scale_rbf = settings.scale(dtype=policy)
        self.down_projection = scaled_dense(settings.emb_size_trip, next(seeds), dtype=policy)
        self.mlp_cbf = settings.mix(settings.emb_size_bil_trip, next(seeds), dtype=policy)
        self.scale_cbf_sum = settings.scale(dtype=policy)
        self.up_projection = UpProjection(emb_size_edge, settings, seeds, dtype=policy)

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

    def __init__(self, settings: Settings, seed: int, **kwargs: Any) -> None:
        super().__init__(autocast=False, **kwargs)
        policy, seeds = self.dtype_policy, seed_stream(seed)
        emb_size_edge, emb_size_quad = settings.emb_size_edge, settings.emb_size_quad
        self.dense_db = settings.dense(emb_size_edge, next(seeds), dtype=policy)
        self.mlp_rbf = scaled_dense(emb_size_edge, next(seeds), None, dtype=policy)
        self.scale_rbf = settings.scale(dtype=policy)
        self.down_projection = scaled_dense(emb_size_quad, next(seeds), dtype=policy)
        self.mlp_cbf = scaled_dense(emb_size_quad, next(seeds), None, dtype=policy)
        self.scale_cbf = settings.scale(dtype=policy)
        self.mlp_sbf = settings.mix(settings.emb_size_bil_quad, next(seeds), dtype=policy)
        self.scale_sbf_sum = settings.scale(dtype=policy)
        self.up_projection = UpProjection(emb_size_edge, settings, seeds, dtype=policy)

    def call(self, m: tf.Tensor, basis: QuadrupletBasis, graph: Graph) -> tf.Tensor:
        x_db = self.dense_db(m)  # (edges, emb_size_edge)
        x_db = self.scale_rbf(x_db * self.mlp_rbf(basis.rbf), reference=x_db)
        x_db = self.down_projection(x_db)  # (edges, emb_size_quad)
        x_abd = basis.quadruplets.to_paths(tf.cast(x_db, m.dtype))  # (a, b, d, emb_size_quad)
        x_abd = self.scale_cbf(x_abd * tf.cast(self.mlp_cbf(basis.cbf), m.dtype), reference=x_abd)
        x = basis.quadruplets.sum_outer(x_abd, basis.sbf)  # (edges, emb_size_sbf, emb_size_quad): sum over b and d
        x = self.scale_sbf_sum(self.mlp_sbf(x), reference=x_db)  # (edges, emb_size_bil_quad)
        return self.up_projection(x, graph)


class EdgeEmbedding(tf.keras.layers.Layer):
    """Message from the features of an edge and its two atoms, D [h_source, h_target, edge], (edges, units)."""

    def __init__(self, settings: Settings, seed: int, **kwargs: Any) -> None:
        super().__init__(autocast=False, **kwargs)
        self.dense = settings.dense(settings.emb_size_edge, seed, dtype=self.dtype_policy)

    def call(self, h: tf.Tensor, edge: tf.Tensor, graph: Graph) -> tf.Tensor:
        h_source, h_target = gather(h, graph.edge_source), gather(h, graph.edge_target)
        return self.dense(tf.concat([h_source, h_target, tf.cast(edge, h.dtype)], axis=-1))


class AtomUpdate(tf.keras.layers.Layer):
    """Dense layers on the sum of the incoming messages, weighted by distance, (atoms, emb_size_atom)."""

    def __init__(self, settings: Settings, num_atom: int, seed: int, **kwargs: Any) -> None:
        super().__init__(autocast=False, **kwargs)
        policy, seeds = self.dtype_policy, seed_stream(seed)
        self.dense_rbf = scaled_dense(settings.emb_size_edge, next(seeds), None, dtype=policy)
        self.scale_sum = settings.scale(dtype=policy)
        first = settings.dense(settings.emb_size_atom, next(seeds), dtype=policy)
        self.layers = [first, *settings.residuals(num_atom, settings.emb_size_atom, seeds, policy)]

    def call(self, m: tf.Tensor, rbf: tf.Tensor, graph: Graph) -> tf.Tensor:
        weighted = m * self.dense_rbf(rbf)  # (edges, emb_size_edge)
        x = segment_sum(weighted, graph.edge_target, tf.shape(graph.atomic_numbers)[0])
        return passed_through(self.layers, self.scale_sum(x, reference=m))
