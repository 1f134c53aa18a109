"""Layers that preserve the variance of their inputs (GemNet, Sec. 5)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from dimenet_tf.graph import Graph
from dimenet_tf.layers.activation import swish
from dimenet_tf.layers.initializers import HeOrthogonal, seed_stream

EPSILON = 1e-5  # of layer normalization


@tf.keras.utils.register_keras_serializable("dimenet_tf")
def scaled_swish(x: tf.Tensor) -> tf.Tensor:
    """Return swish(x) / 0.6, which approximately preserves the variance of normally distributed numbers."""
    return swish(x) / 0.6


def scaled_sum(*branches: tf.Tensor) -> tf.Tensor:
    """Return the sum of n branches over sqrt(n), which has the variance of one branch if they are independent."""
    return tf.add_n([tf.cast(branch, branches[0].dtype) for branch in branches]) / math.sqrt(len(branches))


def scaled_dense(
    units: int, seed: int, activation: Callable | None = scaled_swish, use_bias: bool = False, **kwargs: Any
) -> tf.keras.layers.Dense:
    """Return a dense layer with the HeOrthogonal kernel, without bias unless it is asked for."""
    return tf.keras.layers.Dense(
        units, activation=activation, use_bias=use_bias, kernel_initializer=HeOrthogonal(seed), **kwargs
    )


class ScaledResidual(tf.keras.layers.Layer):
    """Residual layer (x + D2 D1 x) / sqrt(2), (n, units) -> (n, units)."""

    def __init__(self, units: int, seed: int, use_bias: bool = False, **kwargs: Any) -> None:
        super().__init__(autocast=False, **kwargs)
        self.units = units
        self.seed = seed
        self.use_bias = use_bias
        seeds = seed_stream(seed)
        dense = {"use_bias": use_bias, "dtype": self.dtype_policy}
        self.dense_1 = scaled_dense(units, next(seeds), **dense)
        self.dense_2 = scaled_dense(units, next(seeds), **dense)

    def call(self, x: tf.Tensor) -> tf.Tensor:
        return scaled_sum(x, self.dense_2(self.dense_1(x)))

    def get_config(self) -> dict:
        return {**super().get_config(), "units": self.units, "seed": self.seed, "use_bias": self.use_bias}


def passed_through(layers: list, x: tf.Tensor) -> tf.Tensor:
    """Apply layers one after the other."""
    for layer in layers:
        x = layer(x)
    return x


class ScaleFactor(tf.keras.layers.Layer):
    """Multiplication by a number that is fitted to data before training and constant afterwards.

    While `fitting` is set, a call chooses the factor that gives its output the variance of a reference, which is the
    mean over features of the variance over rows. The factor is a weight, so files of weights contain it.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(autocast=False, **kwargs)
        self.fitting = False
        self.scale_factor = self.add_weight(
            "scale_factor", shape=[], initializer="ones", trainable=False, experimental_autocast=False
        )

    def call(self, x: tf.Tensor, reference: tf.Tensor) -> tf.Tensor:
        if self.fitting:
            before, after = self._variance(reference), self._variance(x)
            if after > 0:  # otherwise there is nothing to scale, for example no triplets
                self.scale_factor.assign(tf.cast(tf.sqrt(before / after), self.scale_factor.dtype))
        return x * tf.cast(self.scale_factor, x.dtype)

    @staticmethod
    def _variance(x: tf.Tensor) -> tf.Tensor:
        rows = tf.reshape(tf.cast(x, tf.float64), [-1, x.shape[-1]])
        return tf.reduce_mean(tf.math.reduce_variance(rows, axis=0))


class Unscaled(tf.keras.layers.Layer):
    """Nothing in place of a `ScaleFactor` (GemNet, Table 4)."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(autocast=False, **kwargs)

    def call(self, x: tf.Tensor, reference: tf.Tensor) -> tf.Tensor:
        return x


class FeatureNorm(tf.keras.layers.Layer):
    """Layer normalization without centering in place of a `ScaleFactor` (GemNet, Table 4).

    Features of a row are divided by the root of their mean square, and multiplied by learned numbers. Rows of zeros
    stay zero.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(autocast=False, **kwargs)

    def build(self, input_shape: tf.TensorShape) -> None:
        self.gamma = self.add_weight("gamma", shape=[input_shape[-1]], initializer="ones", experimental_autocast=False)
        super().build(input_shape)

    def call(self, x: tf.Tensor, reference: tf.Tensor) -> tf.Tensor:
        wide = tf.cast(x, self.gamma.dtype)
        mean_square = tf.reduce_mean(wide * wide, axis=-1, keepdims=True)
        return tf.cast(wide * tf.math.rsqrt(mean_square + EPSILON) * self.gamma, x.dtype)


NORMALIZATIONS: dict[str, type[tf.keras.layers.Layer]] = {
    "scaling": ScaleFactor,
    "none": Unscaled,
    "layer_norm": FeatureNorm,
}


def fit_scale_factors(model: tf.keras.Model, graph: Graph) -> None:
    """Choose all scaling factors of a model in one pass so that layers preserve the variances of a batch (Sec. 5)."""
    factors = [layer for layer in model.submodules if isinstance(layer, ScaleFactor)]
    for factor in factors:
        factor.fitting = True
    if factors:
        model(graph)
    for factor in factors:
        factor.fitting = False
