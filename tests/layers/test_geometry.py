"""Vectors, lengths and angles."""

import numpy as np
import pytest
import tensorflow as tf

from dimenet_tf.layers.geometry import ANGLES, cos_angle, safe_norm, unit_vectors


def test_norm_and_its_derivatives_at_zero():
    v = tf.constant([[0.0, 0.0, 0.0], [3.0, 4.0, 0.0]])
    with tf.GradientTape() as second, tf.GradientTape() as first:
        first.watch(v)
        second.watch(v)
        length = safe_norm(v)
        slope = first.gradient(length, v)
    np.testing.assert_allclose(length, [0, 5])
    np.testing.assert_allclose(slope, [[0, 0, 0], [0.6, 0.8, 0]])
    assert np.isfinite(second.gradient(slope, v)).all()


def test_angles_are_what_their_names_say():
    # i at the origin, j on the x axis, k up from j: a right angle at j, 45 degrees at i
    v_ji, v_kj = tf.constant([1.0, 0.0, 0.0]), tf.constant([0.0, 1.0, 0.0])
    assert float(cos_angle("interior", v_kj, v_ji)) == 0
    assert float(cos_angle("at_target", v_kj, v_ji)) == pytest.approx(np.sqrt(0.5))
    # k, j, i in a line
    straight = [float(cos_angle(angle, v_ji, v_ji)) for angle in ANGLES]
    assert straight == [-1, 1, 1]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_directions(dtype):
    v = tf.constant([[0.0, 0.0, 0.0], [3.0, 4.0, 0.0]], dtype)
    with tf.GradientTape() as tape:
        tape.watch(v)
        directions = unit_vectors(v)
    np.testing.assert_allclose(directions, [[0, 0, 0], [0.6, 0.8, 0]], rtol=1e-6)
    # d(x + y + z) / dv = (1 - u (u . 1)) / |v|
    slope = tape.gradient(directions, v)
    np.testing.assert_allclose(slope, [[0, 0, 0], [0.032, -0.024, 0.2]], atol=1e-7)
    assert slope.dtype == directions.dtype == dtype
