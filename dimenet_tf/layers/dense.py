"""Dense layers that all blocks are built from.

With the policy "mixed_bfloat16" the wide layers of a block compute in bfloat16 and return it. Blocks cast the result of
a stack of such layers back by hand, and `autocast=False` keeps Keras from casting inputs. So sums of messages, bases
and features of atoms stay in float32.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from dimenet_tf.layers.activation import swish
from dimenet_tf.layers.initializers import GlorotOrthogonal, seed_stream


def dense(
    units: int, seed: int, activation: Callable | None = swish, use_bias: bool = True, **kwargs: Any
) -> tf.keras.layers.Dense:
    """Return a Keras dense layer with the GlorotOrthogonal kernel of DimeNet and a zero bias."""
    return tf.keras.layers.Dense(
        units, activation=activation, use_bias=use_bias, kernel_initializer=GlorotOrthogonal(seed), **kwargs
    )


def linear(units: int, seed: int, **kwargs: Any) -> tf.keras.layers.Dense:
    """Return a dense layer without bias and activation."""
    return dense(units, seed, activation=None, use_bias=False, **kwargs)


class ResidualLayer(tf.keras.layers.Layer):
    """Residual layer x + swish(W2 swish(W1 x + b1) + b2), (n, units) -> (n, units)."""

    def __init__(self, units: int, seed: int, **kwargs: Any) -> None:
        super().__init__(autocast=False, **kwargs)
        self.units = units
        self.seed = seed
        seeds = seed_stream(seed)
        self.dense_1 = dense(units, next(seeds), dtype=self.dtype_policy)
        self.dense_2 = dense(units, next(seeds), dtype=self.dtype_policy)

    def call(self, x: tf.Tensor) -> tf.Tensor:
        return x + tf.cast(self.dense_2(self.dense_1(x)), x.dtype)

    def get_config(self) -> dict:
        return {**super().get_config(), "units": self.units, "seed": self.seed}


class BasisProjection(tf.keras.layers.Layer):
    """Linear map of the two-dimensional basis, applied to its radial factor alone.

    sum_ln W_(ln)b R_ln Y_l = sum_l Y_l G_lb with G_lb = sum_n W_(ln)b R_ln. G is computed once per edge, a product with
    the full basis once per triplet. The kernel has the shape and order of a dense layer on the full basis.

    (edges, num_spherical, num_radial) -> (edges, num_spherical, units)
    """

    def __init__(self, units: int, seed: int, initializer: type = GlorotOrthogonal, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.units = units
        self.seed = seed
        self.initializer = initializer

    def build(self, input_shape: tf.TensorShape) -> None:
        _, num_spherical, num_radial = input_shape
        shape = [num_spherical * num_radial, self.units]
        self.kernel = self.add_weight("kernel", shape=shape, initializer=self.initializer(self.seed))
        super().build(input_shape)

    def call(self, radial: tf.Tensor) -> tf.Tensor:
        _, num_spherical, num_radial = radial.shape
        kernel = tf.reshape(self.kernel, [num_spherical, num_radial, self.units])
        by_degree = tf.transpose(radial, [1, 0, 2])  # (num_spherical, edges, num_radial)
        return tf.transpose(by_degree @ kernel, [1, 0, 2])

    def get_config(self) -> dict:
        return {**super().get_config(), "units": self.units, "seed": self.seed}
