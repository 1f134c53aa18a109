"""Scalars and vectors of PaiNN's blocks."""

import numpy as np
import tensorflow as tf
from scipy.spatial.transform import Rotation

from dimenet_tf.layers.activation import swish
from dimenet_tf.layers.equivariant import GatedEquivariantBlock, smooth_norm


def test_gated_block():
    rng = np.random.default_rng(0)
    s, v = tf.constant(rng.standard_normal((5, 4))), tf.constant(rng.standard_normal((5, 3, 4)))
    block = GatedEquivariantBlock(6, 2, seed=1, activation=swish, dtype="float64")
    scalars, vectors = block(s, v)
    V, U = np.split(block.mix.kernel.numpy(), 2, axis=1)
    norms = np.sqrt(((v.numpy() @ V) ** 2).sum(axis=1) + 1e-8)
    x = swish(np.concatenate([s, norms], axis=1) @ block.dense_1.kernel) @ block.dense_2.kernel
    np.testing.assert_allclose(scalars, swish(x[:, :2]), rtol=1e-10)
    np.testing.assert_allclose(vectors, x.numpy()[:, None, 2:] * (v.numpy() @ U), rtol=1e-10)
    turn = Rotation.random(random_state=0).as_matrix()
    same, turned = block(s, tf.einsum("xy,ayu->axu", turn, v))
    np.testing.assert_allclose(same, scalars, rtol=1e-10)
    np.testing.assert_allclose(turned, tf.einsum("xy,ayu->axu", turn, vectors), rtol=1e-9, atol=1e-12)


def test_norm_of_a_zero_vector_is_smooth():
    v = tf.zeros([1, 3, 2], tf.float64)
    with tf.GradientTape() as second, tf.GradientTape() as first:
        first.watch(v)
        second.watch(v)
        norm = smooth_norm(v)
        slope = first.gradient(norm, v)
    np.testing.assert_allclose(norm, 1e-4)
    assert not slope.numpy().any()
    np.testing.assert_allclose(second.gradient(slope, v), 1e4)
