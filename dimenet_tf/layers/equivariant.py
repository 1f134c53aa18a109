"""Layers on scalar and vector features of atoms, shared by PaiNN's blocks.

Scalars are (atoms, units), vectors (atoms, 3, units). Vectors are only combined linearly, scaled by scalars and
multiplied with each other, so they are rotation-equivariant.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from dimenet_tf.layers.activation import swish
from dimenet_tf.layers.geometry import safe_norm
from dimenet_tf.layers.initializers import output_initializer, seed_stream

EPSILON = 1e-8  # under the square root of norms, as in the published code: smooth where a vector is zero


def xavier_dense(units: int, seed: int, activation: Callable | None = None, **kwargs: Any) -> tf.keras.layers.Dense:
    """Return a dense layer with Xavier's uniform kernel and a zero bias."""
    initializer = tf.keras.initializers.GlorotUniform(seed)
    return tf.keras.layers.Dense(units, activation=activation, kernel_initializer=initializer, **kwargs)


def output_dense(units: int, output_init: str, seed: int, **kwargs: Any) -> tf.keras.layers.Dense:
    """Return the last dense layer of a read-out; `output_init` is "GlorotUniform" or "zeros"."""
    initializer = output_initializer(output_init, seed, tf.keras.initializers.GlorotUniform)
    return tf.keras.layers.Dense(units, kernel_initializer=initializer, **kwargs)


def smooth_norm(vectors: tf.Tensor) -> tf.Tensor:
    """Return the smooth length sqrt(|v|^2 + 1e-8), (atoms, 3, units) -> (atoms, units)."""
    return tf.sqrt(tf.reduce_sum(vectors * vectors, axis=1) + EPSILON)


def exact_norm(vectors: tf.Tensor) -> tf.Tensor:
    """Return the length |v|, (atoms, 3, units) -> (atoms, units). Its derivatives at zero are zero."""
    return safe_norm(tf.transpose(vectors, [0, 2, 1]))


class GatedEquivariantBlock(tf.keras.layers.Layer):
    """Scalars and vectors from scalars and vectors (PaiNN, Fig. 3).

    s', a = W2 swish(W1 [s, |V v|] + b1) + b2 and v' = a U v, without biases in U and V.

    Parameters
    ----------
    hidden : int, width of the hidden layer
    units : int, number of scalars and of vectors returned
    activation : of the returned scalars, or None
    output_init : "GlorotUniform" or "zeros", of W2
    norms : int, number of lengths |V v|; `units` if left out
    norm : length of vectors, `smooth_norm` or `exact_norm`
    seed : int

    Returns
    -------
    (atoms, units) and (atoms, 3, units)
    """

    def __init__(
        self,
        hidden: int,
        units: int,
        seed: int,
        activation: Callable | None = None,
        output_init: str = "GlorotUniform",
        norms: int | None = None,
        norm: Callable = smooth_norm,
        **kwargs: Any,
    ) -> None:
        super().__init__(autocast=False, **kwargs)
        self.activation = activation
        self.norm = norm
        seeds = seed_stream(seed)
        self.norms, self.units = norms or units, units
        self.mix = xavier_dense(self.norms + units, next(seeds), use_bias=False, dtype=self.dtype)
        self.dense_1 = xavier_dense(hidden, next(seeds), activation or swish, dtype=self.dtype)
        self.dense_2 = output_dense(2 * units, output_init, next(seeds), dtype=self.dtype)

    def call(self, s: tf.Tensor, v: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        Vv, Uv = tf.split(self.mix(v), [self.norms, self.units], axis=-1)  # (atoms, 3, norms), (atoms, 3, units)
        x = self.dense_2(self.dense_1(tf.concat([s, self.norm(Vv)], axis=-1)))
        s, a = tf.split(x, 2, axis=-1)  # (atoms, units)
        return (s if self.activation is None else self.activation(s)), a[:, None] * Uv
