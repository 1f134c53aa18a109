"""One training step."""

import numpy as np
import pytest
import tensorflow as tf

from dimenet_tf.graph.pipeline import Batch
from dimenet_tf.properties.losses import Loss
from dimenet_tf.training.optimizer import create_optimizer_weights, make_optimizer
from dimenet_tf.training.schedules import WarmupDecay
from dimenet_tf.training.step import TrainingModel
from helpers.models import force_field, graph_of
from helpers.molecules import molecules
from helpers.training import configuration, trainer_of


def steps(predictor, jit_compile):
    """Return the losses of three steps, and the weights after them."""
    rate, stop = tf.Variable(1.0, trainable=False), tf.Variable(0, trainable=False)
    loss = Loss("dimenet", None, predictor.head, "energy")
    training = TrainingModel(predictor, loss, 10.0, None, rate, stop, jit_compile)
    optimizer = make_optimizer(WarmupDecay(1e-3, 2, 100, 0.1), 0.9, jit_compile=jit_compile)
    training.compile(optimizer=optimizer)
    create_optimizer_weights(optimizer, predictor.trainable_variables)
    graph = graph_of(*molecules("CH3CH2OH", "H2O"), predictor.model).to_tensors()
    zeros = tf.zeros([2, 1], tf.float64)
    forces = tf.zeros([len(graph.positions), 3], tf.float64)
    batch = Batch(graph, zeros, forces, tf.zeros([0, 3, 3], tf.float64), tf.constant(0.5, tf.float64), zeros[:, 0] + 1)
    losses = [training.train_step(batch)["loss"].numpy() for _ in range(3)]
    return losses, [variable.numpy() for variable in predictor.trainable_variables]


@pytest.mark.parametrize("name", ["painn", "dimenet_pp"])
def test_a_compiled_step_is_the_same_step(name):
    (losses, weights), (expected_losses, expected) = (steps(force_field(name), jit) for jit in (True, False))
    np.testing.assert_allclose(losses, expected_losses, rtol=1e-12)
    for found, variable in zip(weights, expected):
        np.testing.assert_allclose(found, variable, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("deterministic", [True, False])
def test_sums_in_a_fixed_order_are_an_option(tmp_path, monkeypatch, deterministic):
    """Only a GPU adds in any order: two runs of 20 steps on one differ without the option and not with it."""
    asked = []
    monkeypatch.setattr(tf.config.experimental, "enable_op_determinism", lambda: asked.append(True))
    trainer_of(configuration(deterministic=deterministic), tmp_path)
    assert asked == [True] * deterministic
