"""Layers that keep the variance."""

import numpy as np
import tensorflow as tf

from dimenet_tf.layers.activation import swish
from dimenet_tf.layers.scaled import ScaledResidual, ScaleFactor, scaled_dense, scaled_sum, scaled_swish


def test_scaled_swish():
    x = tf.constant(np.linspace(-5, 5, 11))
    np.testing.assert_allclose(scaled_swish(x), swish(x) / 0.6, rtol=1e-12)


def test_sums_have_the_dtype_and_the_width_of_the_first_branch():
    total = scaled_sum(tf.constant([2.0]), tf.constant([4.0], tf.bfloat16), tf.constant([6.0]), tf.constant([8.0]))
    assert total.dtype == tf.float32 and total.numpy().tolist() == [10]


def test_dense_and_residual_layers():
    x = tf.constant(np.random.default_rng(0).standard_normal((5, 4)))
    plain, residual = scaled_dense(3, 1, None, dtype="float64"), ScaledResidual(4, seed=2, dtype="float64")
    np.testing.assert_allclose(plain(x), x @ plain.kernel, rtol=1e-12)
    residual(x)
    W1, W2 = residual.dense_1.kernel, residual.dense_2.kernel
    expected = (x + scaled_swish(scaled_swish(x @ W1) @ W2)) / np.sqrt(2)
    np.testing.assert_allclose(residual(x), expected, rtol=1e-12)
    assert plain.bias is residual.dense_1.bias is None
    assert ScaledResidual.from_config(residual.get_config()).get_config() == residual.get_config()


def test_scale_factors():
    """The factor is the ratio of standard deviations. It changes only while it is fitted."""
    x, factor = tf.constant(np.random.default_rng(0).standard_normal((50, 4))), ScaleFactor(dtype="float64")
    np.testing.assert_array_equal(factor(x, reference=3 * x), x)
    factor.fitting = True
    np.testing.assert_allclose(factor(x, reference=3 * x), 3 * x, rtol=1e-12)
    factor(0 * x, reference=x)  # a variance of zero, as of no triplets, leaves the factor
    factor.fitting = False
    np.testing.assert_allclose(factor(x, reference=7 * x), 3 * x, rtol=1e-12)
    assert not factor.trainable_variables and len(factor.variables) == 1
