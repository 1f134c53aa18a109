"""Dense layers."""

import numpy as np
import pytest
import tensorflow as tf

from dimenet_tf.layers.activation import swish
from dimenet_tf.layers.dense import BasisProjection, ResidualLayer, dense, linear


def test_dense_and_linear():
    x = tf.constant(np.random.default_rng(0).standard_normal((5, 3)))
    layer, plain = dense(4, seed=1, dtype="float64"), linear(4, seed=1, dtype="float64")
    np.testing.assert_allclose(plain(x), x @ plain.kernel, rtol=1e-12)
    assert not layer(x * 0).numpy().any() and plain.bias is None
    layer.bias.assign([1.0, -2.0, 3.0, 0.5])
    np.testing.assert_allclose(layer(x), swish(x @ layer.kernel + layer.bias), rtol=1e-12)
    np.testing.assert_array_equal(layer.kernel, plain.kernel)


def test_residual_layer():
    x, layer = tf.constant(np.random.default_rng(0).standard_normal((5, 4))), ResidualLayer(4, seed=1, dtype="float64")
    layer(x)
    W1, W2 = layer.dense_1.kernel, layer.dense_2.kernel
    assert not np.allclose(W1, W2)
    np.testing.assert_allclose(layer(x), x + swish(swish(x @ W1) @ W2), rtol=1e-12)


def test_residual_layer_of_mixed_precision():
    """The dense layers compute in bfloat16, and the sum keeps the dtype of its input."""
    x, layer = tf.ones([5, 4]), ResidualLayer(4, seed=1, dtype="mixed_bfloat16")
    assert layer(x).dtype == tf.float32 and layer.dense_1(x).dtype == tf.bfloat16
    assert layer.dense_1.kernel.dtype == tf.float32


def test_basis_projection_is_a_dense_layer_on_the_full_basis():
    rng = np.random.default_rng(0)
    radial, y = tf.constant(rng.standard_normal((9, 7, 6))), tf.constant(rng.standard_normal((9, 7)))
    layer = BasisProjection(5, seed=1, dtype="float64")
    projected = tf.einsum("el,elb->eb", y, layer(radial))
    full = tf.reshape(y[:, :, None] * radial, [9, 42])
    np.testing.assert_allclose(projected, full @ layer.kernel, atol=1e-12)


@pytest.mark.parametrize("layer", [ResidualLayer(4, seed=1), BasisProjection(3, seed=2)], ids=lambda layer: layer.name)
def test_layer_configuration_round_trip(layer):
    assert type(layer).from_config(layer.get_config()).get_config() == layer.get_config()
