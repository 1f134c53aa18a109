"""Swish and its derivatives."""

import numpy as np
import pytest
import tensorflow as tf

from dimenet_tf.layers.activation import swish
from helpers.numerics import derivatives


def test_swish_and_its_derivatives_are_tensorflows():
    x = tf.constant(np.linspace(-30, 30, 101))
    for ours, theirs in zip(derivatives(swish, x, 4), derivatives(lambda x: x * tf.sigmoid(x), x, 4)):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-14)


def test_swish_of_bfloat16():
    x = tf.constant(np.linspace(-5, 5, 21), tf.bfloat16)
    for ours, exact in zip(derivatives(swish, x, 2), derivatives(swish, tf.cast(x, tf.float64), 2)):
        assert ours.dtype == tf.bfloat16.as_numpy_dtype
        np.testing.assert_allclose(ours.astype(float), exact, atol=0.02)


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
def test_derivatives_keep_the_dtype(dtype):
    values = derivatives(swish, tf.constant([-2.0, 0.0, 3.0], dtype), 3)
    assert {value.dtype.name for value in values} == {dtype}


def test_values_at_zero():
    """swish(x) = x / 2 + x^2 / 4 - x^4 / 48 + ..."""
    np.testing.assert_allclose(derivatives(swish, tf.constant(0.0, tf.float64), 4), [0, 1 / 2, 1 / 2, 0, -1 / 2])
