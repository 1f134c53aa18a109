"""Files of TensorFlow 2.15 with Addons are read by 2.21 with tf-keras, and the other way round."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

import dimenet_tf
from dimenet_tf import stack
from dimenet_tf.training import optimizer as optimizers
from dimenet_tf.training.optimizer import (
    AdamW,
    MovingAverage,
    averaged_values,
    create_optimizer_weights,
    make_optimizer,
)
from dimenet_tf.training.schedules import WarmupDecay
from helpers.paths import FILES, ROOT

pytestmark = pytest.mark.smoke
STACKS = sorted(path.name for path in (FILES / "stacks").iterdir())
HAS_ADDONS = importlib.util.find_spec("tensorflow_addons") is not None
KERAS_3 = importlib.util.find_spec("tf_keras") is not None
needs_addons = pytest.mark.skipif(not HAS_ADDONS, reason="TensorFlow Addons are for Python 3.9 to 3.11")


def expected(name: str) -> dict:
    return json.loads((FILES / "stacks" / name / "expected.json").read_text())


@pytest.mark.parametrize("name", STACKS)
def test_a_run_continues(name, tmp_path, monkeypatch):
    """The same losses, step by step, as on the stack that began the run."""
    sys.path.insert(0, str(ROOT / "tools"))
    from make_stack_runs import losses_of_more_steps

    shutil.copytree(FILES / "stacks" / name / "run", tmp_path / "run")
    losses = losses_of_more_steps(tmp_path / "run")
    assert len(losses) == 20
    np.testing.assert_allclose(losses, expected(name)["losses"], rtol=1e-5)


@pytest.mark.parametrize("name", STACKS)
@pytest.mark.parametrize("form", ["run", "model.keras"])
def test_models_predict_the_same(name, form):
    path, numbers = FILES / "stacks" / name / form, expected(name)
    predictor = tf.keras.models.load_model(path) if form.endswith(".keras") else dimenet_tf.load(path)
    predicted = predictor.predict({key: np.array(numbers[key]) for key in ("Z", "R")})
    assert_predictions(predicted, numbers)


@pytest.mark.parametrize("name", STACKS)
def test_exported_models_predict_the_same(name):
    numbers = expected(name)
    served = tf.saved_model.load(str(FILES / "stacks" / name / "served/1"))
    predicted = served.signatures["serving_default"](
        Z=tf.constant(numbers["Z"], tf.int32), R=tf.constant(numbers["R"], tf.float32)
    )
    assert_predictions(predicted, numbers)


def assert_predictions(predicted, numbers):
    np.testing.assert_allclose(predicted["energy"], numbers["energy"], rtol=0, atol=1e-5)
    np.testing.assert_allclose(predicted["forces"], numbers["forces"], rtol=0, atol=1e-5)


def variables() -> list[tf.Variable]:
    rng = np.random.default_rng(0)
    shapes = {"a/kernel": (5, 7), "b/bilinear": (4,), "c/embeddings": (9, 3), "d/bias": (7,)}
    return [tf.Variable(rng.normal(size=shape).astype(np.float32), name=name) for name, shape in shapes.items()]


def ours_and_addons(weight_decay: float) -> tuple:
    """Return both moving averages, each around an optimizer of its own."""

    def inner():
        rate = WarmupDecay(1e-2, 20, 100, 0.5)
        if weight_decay:
            return AdamW(rate, weight_decay)
        return tf.keras.optimizers.legacy.Adam(rate, amsgrad=True)

    return MovingAverage(inner(), 0.99), optimizers._addons()(inner(), average_decay=0.99, dynamic_decay=True)


def make_steps(optimizer, weights, first: int, steps: int) -> None:
    @tf.function
    def step(gradients):
        optimizer.apply_gradients(zip(gradients, weights))

    create_optimizer_weights(optimizer, weights)
    for number in range(first, first + steps):
        rng = np.random.default_rng(number)
        step([tf.constant(rng.normal(size=weight.shape), tf.float32) for weight in weights])


@needs_addons
@pytest.mark.parametrize("weight_decay", [0.0, 0.5])
def test_moving_average_has_the_numbers_of_addons(weight_decay):
    results = []
    for optimizer in ours_and_addons(weight_decay):
        weights = variables()
        make_steps(optimizer, weights, 0, 200)
        results.append([*weights, *averaged_values(optimizer, weights)])
    for ours, theirs in zip(*results):
        np.testing.assert_array_equal(ours, theirs)


@needs_addons
@pytest.mark.parametrize("first", ["ours", "addons"])
def test_checkpoints_of_both_moving_averages_are_the_same(first, tmp_path):
    before, after = ours_and_addons(0.5) if first == "ours" else reversed(ours_and_addons(0.5))
    whole, weights, others = ours_and_addons(0.5)[0], variables(), variables()
    make_steps(before, weights, 0, 30)
    path = tf.train.Checkpoint(optimizer=before, weights=weights).write(str(tmp_path / "state"))
    create_optimizer_weights(after, others)
    tf.train.Checkpoint(optimizer=after, weights=others).read(path).assert_consumed()
    make_steps(after, others, 30, 30)
    uninterrupted = variables()
    make_steps(whole, uninterrupted, 0, 60)
    for one, other in zip(uninterrupted, others):
        np.testing.assert_array_equal(one, other)
    for one, other in zip(averaged_values(whole, uninterrupted), averaged_values(after, others)):
        np.testing.assert_array_equal(one, other)


def test_moving_average_under_two_replicas():
    """The same numbers as with one, made before the first step and inside it."""
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    results = []
    for scope in (tf.distribute.get_strategy(), strategy):
        with scope.scope():
            weights = variables()
            optimizer = MovingAverage(AdamW(WarmupDecay(1e-2, 20, 100, 0.5), 0.5), 0.99)
            create_optimizer_weights(optimizer, weights)

            @tf.function
            def step(scope=scope, weights=weights, optimizer=optimizer):
                def update():
                    gradients = [tf.sin(weight) for weight in weights]
                    optimizer.apply_gradients(zip(gradients, weights), experimental_aggregate_gradients=False)

                scope.run(update)

            for _ in range(5):
                step()
        results.append([*map(tf.convert_to_tensor, weights), *averaged_values(optimizer, weights)])
    for one, two in zip(*results):
        np.testing.assert_array_equal(one, two)


def test_make_optimizer_takes_addons_where_they_are_installed():
    optimizer = make_optimizer(WarmupDecay(1e-2, 20, 100, 0.5), 0.99)
    assert type(optimizer).__module__.startswith("tensorflow_addons") == HAS_ADDONS


def python(code: str, **environment) -> subprocess.CompletedProcess:
    environment = {**{k: v for k, v in os.environ.items() if k != stack.SWITCH}, **environment}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)


@pytest.mark.skipif(not KERAS_3, reason="TensorFlow 2.15 has no Keras 3")
@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import tensorflow as tf; tf.keras.Model; import dimenet_tf", "tf.keras was used before"),
        ("import sys; sys.modules['tf_keras'] = None; import dimenet_tf", "install the package tf-keras"),
    ],
)
def test_keras_3_is_refused(code, reason):
    result = python(code)
    assert result.returncode == 1
    message = result.stderr.strip().split("\n")[-1]
    assert message.startswith("ImportError: dimenet_tf needs Keras 2") and reason in message


@pytest.mark.skipif(not KERAS_3, reason="TensorFlow 2.15 has no Keras 3")
@pytest.mark.parametrize("value", ["", "0"])
def test_keras_2_is_chosen_whatever_is_imported_first(value):
    code = "import tensorflow as tf, dimenet_tf; print(tf.keras.Model.__module__)"
    assert python(code, **{stack.SWITCH: value}).stdout.startswith("tf_keras.")
