"""Parts of a model that are computed again in the backward pass."""

import numpy as np
import pytest
import tensorflow as tf

from dimenet_tf.layers.recompute import run
from dimenet_tf.models import build_model
from helpers.models import DIMENETS, SMALL, graph_of, randomize
from helpers.molecules import molecules


def test_values_and_derivatives():
    """f = w x^2 y and its derivatives with respect to tensors and a variable, at x = 2, y = 3, w = 5."""
    x, y, w = tf.constant(2.0), tf.constant(3.0), tf.Variable(5.0)
    with tf.GradientTape(persistent=True) as outer:
        outer.watch([x, y])
        with tf.GradientTape() as inner:
            inner.watch([x, y])
            value = run(lambda x, y: w * x**2 * y, x, y, again=True)
        first = inner.gradient(value, [x, y, w])
    assert float(value) == 60 and [float(slope) for slope in first] == [60, 20, 12]
    second = [[float(outer.gradient(slope, source)) for source in (x, y, w)] for slope in first[:2]]
    assert second == [[30, 20, 12], [20, 0, 4]]


@pytest.mark.parametrize("again, calls", [(False, 1), (True, 2)])
def test_the_function_is_called_again_in_the_backward_pass(again, calls):
    seen, x = [], tf.constant(2.0)

    def square(x):
        seen.append(float(x))
        return x**2

    with tf.GradientTape() as tape:
        tape.watch(x)
        y = run(square, x, again=again)
    assert seen == [2]
    assert float(tape.gradient(y, x)) == 4 and seen == [2] * calls


def test_lists_and_unused_tensors():
    x, unused = tf.constant(2.0), tf.constant(7.0)
    with tf.GradientTape() as tape:
        tape.watch([x, unused])
        double, cube = run(lambda x, unused: [2 * x, x**3], x, unused, again=True)
        total = double + cube
    assert [float(slope) for slope in tape.gradient(total, [x, unused])] == [14, 0]


@pytest.mark.parametrize("name", DIMENETS)
def test_recomputing_changes_no_number(name):
    """Energies, forces, and the gradients of a loss of both."""
    results = []
    for recompute in (False, True):
        small = {**SMALL[name], "num_blocks": 1, "num_dense_output": 1}  # less to trace
        model = randomize(build_model(name, dtype="float64", recompute=recompute, **small))
        graph = graph_of(*molecules("CH3CH2OH", "H2O"), model)

        @tf.function
        def step(positions, model=model, graph=graph):
            with tf.GradientTape() as outer:
                with tf.GradientTape() as inner:
                    inner.watch(positions)
                    energy = tf.reduce_sum(model(graph._replace(positions=positions)).scalars)
                slope = tf.convert_to_tensor(inner.gradient(energy, positions))
                loss = energy**2 + tf.reduce_sum(slope**2)
            return energy, slope, *outer.gradient(loss, model.trainable_variables)

        results.append(step(tf.constant(graph.positions)))
    for plain, again in zip(*results):
        scale = np.abs(tf.convert_to_tensor(plain)).max()
        np.testing.assert_allclose(tf.convert_to_tensor(again), tf.convert_to_tensor(plain), rtol=0, atol=1e-11 * scale)
