"""Initializers with one seed for each weight."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from dimenet_tf.errors import check_choice


def seed_stream(seed: int) -> Iterator[int]:
    """Yield independent seeds derived from one. A block takes one for each of its weights and sub-blocks.

    Every weight needs its own initializer, because a Keras initializer that is used twice returns the same numbers.
    """
    return (int(s) for s in _spawn(np.random.SeedSequence(seed)))


def _spawn(sequence: np.random.SeedSequence) -> Iterator[np.integer]:
    while True:
        yield sequence.spawn(1)[0].generate_state(1)[0] >> 1  # positive in int32, as TensorFlow wants it


def orthogonal(rows: int, columns: int, seed: int) -> tf.Tensor:
    """Return a random matrix with orthonormal columns, or orthonormal rows if there are fewer rows, float64."""
    # not NumPy's QR, whose threads can wait for each other for seconds on a busy machine
    shape = [max(rows, columns), min(rows, columns)]
    q, r = tf.linalg.qr(tf.random.stateless_normal(shape, [seed, 0], dtype=tf.float64))
    q *= tf.sign(tf.linalg.diag_part(r))  # uniformly distributed only with this choice of signs
    return q if rows >= columns else tf.transpose(q)


class GlorotOrthogonal(tf.keras.initializers.Initializer):
    """Orthogonal matrix rescaled to Glorot's variance: W sqrt(2 / ((fan_in + fan_out) Var(W))).

    It initializes two-dimensional kernels (fan_in, fan_out). Var is the population variance of all entries.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def __call__(self, shape: Sequence[int], dtype: tf.DType | None = None, **kwargs: Any) -> tf.Tensor:
        fan_in, fan_out = shape
        w = orthogonal(fan_in, fan_out, self.seed)
        # one entry alone has no variance
        variance = tf.math.reduce_variance(w) if fan_in * fan_out > 1 else tf.ones([], w.dtype)
        return tf.cast(w * tf.sqrt(2 / ((fan_in + fan_out) * variance)), dtype or tf.float32)

    def get_config(self) -> dict:
        return {"seed": self.seed}


class HeOrthogonal(tf.keras.initializers.Initializer):
    """Orthogonal matrix whose columns are standardized, times sqrt(1 / fan_in) (GemNet, Sec. 5).

    It initializes kernels (..., fan_out); fan_in is the product of all other axes.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def __call__(self, shape: Sequence[int], dtype: tf.DType | None = None, **kwargs: Any) -> tf.Tensor:
        fan_in, fan_out = math.prod(shape[:-1]), shape[-1]
        w = orthogonal(fan_in, fan_out, self.seed)
        if fan_in > 1:  # one entry alone has no variance
            mean, variance = tf.nn.moments(w, axes=[0], keepdims=True)
            w = (w - mean) / tf.sqrt(variance + 1e-6)
        return tf.cast(tf.reshape(w * math.sqrt(1 / fan_in), shape), dtype or tf.float32)

    def get_config(self) -> dict:
        return {"seed": self.seed}


def output_initializer(name: str, seed: int, orthogonal: type = GlorotOrthogonal) -> tf.keras.initializers.Initializer:
    """Return the initializer of an output block's last layer: zeros for "zeros", otherwise `orthogonal`."""
    if name == "zeros":
        return tf.keras.initializers.Zeros()
    check_choice("output_init", name, ("zeros", orthogonal.__name__))
    return orthogonal(seed)
