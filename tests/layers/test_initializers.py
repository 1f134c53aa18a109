"""Initial weights and their seeds."""

import numpy as np
import pytest
import tensorflow as tf

from dimenet_tf.errors import UserError
from dimenet_tf.layers.initializers import GlorotOrthogonal, HeOrthogonal, output_initializer, seed_stream
from dimenet_tf.models import build_model
from dimenet_tf.predictor.weights import named_variables
from helpers.models import SMALL, graph_of
from helpers.molecules import molecules


@pytest.mark.parametrize("shape", [(128, 128), (42, 8), (8, 64), (5, 1), (1, 1)])
def test_glorot_orthogonal(shape):
    w = GlorotOrthogonal(seed=1)(shape, tf.float64).numpy()
    gram = w @ w.T if shape[0] < shape[1] else w.T @ w
    np.testing.assert_allclose(gram, gram[0, 0] * np.eye(min(shape)), atol=1e-12)
    if w.size > 1:
        assert w.var() == pytest.approx(2 / sum(shape))


@pytest.mark.parametrize("shape", [(64, 16), (16, 64), (4, 6, 8)])
def test_he_orthogonal(shape):
    """Every column has the mean 0 and the variance 1 / fan_in."""
    w = HeOrthogonal(seed=1)(shape, tf.float64).numpy().reshape(-1, shape[-1])
    np.testing.assert_allclose(w.mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(w.var(axis=0), 1 / len(w), rtol=1e-3)


def test_he_orthogonal_of_one_row():
    np.testing.assert_allclose(np.abs(HeOrthogonal(seed=1)([1, 1])), 1)


@pytest.mark.parametrize("initializer", [GlorotOrthogonal, HeOrthogonal])
def test_the_seed_decides_the_kernel(initializer):
    first, again, other = (initializer(seed)([8, 6]).numpy() for seed in (1, 1, 2))
    assert first.dtype == np.float32 and np.array_equal(first, again) and not np.allclose(first, other)
    assert initializer.from_config(initializer(5).get_config()).seed == 5


def test_output_initializers():
    assert not output_initializer("zeros", 1)([4, 3]).numpy().any()
    expected = HeOrthogonal(7)([4, 3])
    np.testing.assert_array_equal(output_initializer("HeOrthogonal", 7, HeOrthogonal)([4, 3]), expected)


def test_seeds_of_a_stream_differ_and_repeat():
    first, second = seed_stream(3), seed_stream(3)
    a = [next(first) for _ in range(100)]
    assert len(set(a)) == 100 and a == [next(second) for _ in range(100)]


def test_no_two_weights_of_a_model_start_equal(model_name):
    kernels = [v.numpy() for v in named_variables(build_model(model_name, **SMALL[model_name])).values()]
    kernels = [k for k in kernels if k.ndim > 1]
    for i, a in enumerate(kernels):
        assert not any(a.shape == b.shape and np.array_equal(a, b) for b in kernels[:i])


def test_the_seed_decides_the_weights(model_name):
    def weights(seed):
        return build_model(model_name, seed=seed, **SMALL[model_name]).get_weights()

    assert all(np.array_equal(a, b) for a, b in zip(weights(1), weights(1)))
    assert not any(np.array_equal(a, b) for a, b in zip(weights(1), weights(2)) if a.ndim > 1)


def test_output_init_zeros_gives_zero_output(model_name):
    model = build_model(model_name, output_init="zeros", **SMALL[model_name])
    assert not model(graph_of(*molecules("CH3CH2OH"), model)).scalars.numpy().any()
    with pytest.raises(UserError, match="output_init must be one of zeros"):
        output_initializer("ones", 0)
