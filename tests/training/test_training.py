import json
import math
import shutil

import numpy as np
import pytest
import tensorflow as tf

from dimenet_tf.config.schema import resolve
from dimenet_tf.errors import UserError
from dimenet_tf.predictor import load
from dimenet_tf.predictor.weights import named_variables
from dimenet_tf.properties.property import Property
from dimenet_tf.runs.folder import RunFolder
from dimenet_tf.training.distribution import make_strategy
from dimenet_tf.training.metrics import error_table, format_table
from dimenet_tf.training.optimizer import averaged_values, create_optimizer_weights, make_optimizer
from dimenet_tf.training.report import report
from dimenet_tf.training.schedules import WarmupDecay
from dimenet_tf.training.state import RunState
from dimenet_tf.training.step import clip_by_weights
from helpers.models import SMALL
from helpers.training import assert_equal_weights, configuration, dataset, trainer_of, weights_of


def test_schedule():
    schedule = WarmupDecay(1e-3, warmup_steps=3000, decay_steps=4_000_000, decay_rate=0.01)
    assert float(schedule(0)) == pytest.approx(1e-3 / 3000)
    assert float(schedule(1499)) == pytest.approx(0.5e-3, rel=1e-2)
    # 0.1 in 2 000 000 steps, as DimeNet's App. B puts it
    assert float(schedule(2_000_000)) == pytest.approx(1e-4, rel=1e-5)
    cosine = WarmupDecay(1e-3, warmup_steps=0, decay_steps=100, decay_rate=0.01, decay="cosine")
    np.testing.assert_allclose([cosine(s) for s in (0, 50, 100, 900)], [1e-3, 0.505e-3, 1e-5, 1e-5], rtol=1e-5)
    for one in (schedule, cosine):
        assert WarmupDecay(**one.get_config()).get_config() == one.get_config()
    with pytest.raises(UserError, match="training.decay must be one of exponential, cosine; got 'linear'"):
        WarmupDecay(1e-3, 0, 100, 0.01, decay="linear")


@pytest.mark.parametrize("jit_compile", [False, True])
def test_optimizer_is_amsgrad_with_a_moving_average(jit_compile):
    variable = tf.Variable([1.0, 2.0])
    optimizer = make_optimizer(WarmupDecay(0.1, 0, 100, 1.0), ema_decay=0.5, jit_compile=jit_compile)
    create_optimizer_weights(optimizer, [variable])
    expected, m, v, v_max = np.array([1.0, 2.0]), 0, 0, 0
    average = expected.copy()

    @tf.function(jit_compile=jit_compile)
    def step(gradient):
        optimizer.apply_gradients([(gradient, variable)])

    for t in range(1, 6):
        g = np.array([1.0, -0.5]) / t
        step(tf.constant(g, tf.float32))
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        v_max = np.maximum(v_max, v)
        expected = expected - 0.1 * math.sqrt(1 - 0.999**t) / (1 - 0.9**t) * m / (np.sqrt(v_max) + 1e-7)
        decay = min(0.5, t / (9 + t))
        average = decay * average + (1 - decay) * expected
    np.testing.assert_allclose(variable, expected, rtol=1e-5)
    np.testing.assert_allclose(averaged_values(optimizer, [variable])[0], average, rtol=1e-4)


def test_weight_decay_spares_embeddings_biases_and_frequencies():
    """AdamW without gradients is decay alone: weight_decay times the learning rate, in the moving average too."""

    variables = [
        tf.Variable([1.0, 2.0], name=n) for n in ("a/kernel", "b/bilinear", "c/embeddings", "bias", "frequencies")
    ]
    rate = WarmupDecay(0.01, warmup_steps=2, decay_steps=100, decay_rate=0.5)
    optimizer = make_optimizer(rate, 0.5, weight_decay=10.0)
    create_optimizer_weights(optimizer, variables)
    expected = np.array([1.0, 2.0])
    for step in range(3):
        optimizer.apply_gradients([(tf.zeros(2), variable) for variable in variables])
        expected = expected * (1 - 10 * rate(step))
    for variable in variables[:2]:
        np.testing.assert_allclose(variable, expected, rtol=1e-6)
    for variable in variables[2:]:
        np.testing.assert_array_equal(variable, [1.0, 2.0])


def test_learning_rate_decays_on_a_plateau_as_keras_does():
    model, twin = tf.keras.Sequential(), tf.keras.callbacks.ReduceLROnPlateau("loss", 0.5, 3, min_delta=0, cooldown=2)
    model.compile(tf.keras.optimizers.legacy.SGD(1.0))
    twin.set_model(model)
    twin.on_train_begin()
    state, rate, losses = RunState(), 1.0, np.random.RandomState(0).rand(60) + np.linspace(1, 0.5, 60)
    for epoch, loss in enumerate(losses):
        twin.on_epoch_end(epoch, {"loss": loss})
        rate *= 0.5 if state.on_plateau(loss, patience=3, cooldown=2) else 1
        assert rate == float(model.optimizer.lr)
    assert 0.5**15 < rate < 0.5**5


def test_a_smoothed_loss_is_what_the_plateau_is_judged_by():
    losses = 2.0 - 0.01 * np.arange(40)
    losses[22::4] += 0.04
    losses[23::4] += 0.04
    smooth, plain = RunState(), RunState()
    assert any([plain.on_plateau(loss, patience=2, cooldown=0) for loss in losses])
    assert not any([smooth.on_plateau(loss, patience=2, cooldown=0, smoothing=0.9) for loss in losses])
    weights = 0.1 * 0.9 ** np.arange(39, -1, -1)
    weights[0] /= 0.1  # the first loss stands for all before it
    assert smooth.smooth_loss == pytest.approx(weights @ losses)


def test_adaptive_clipping_of_units():
    rng = np.random.default_rng(0)
    weights, gradient = rng.normal(size=(4, 3)), rng.normal(size=(4, 3)) * [1e-3, 1, 10]
    weights[:, 1] = 0  # a new output layer: it must be able to move
    clipped = clip_by_weights(tf.constant(gradient), tf.constant(weights), 0.1).numpy()
    np.testing.assert_array_equal(clipped[:, 0], gradient[:, 0])
    for unit, norm in ((1, 0.1 * 1e-3), (2, 0.1 * np.linalg.norm(weights[:, 2]))):
        assert np.linalg.norm(clipped[:, unit]) == pytest.approx(norm)
        assert np.corrcoef(clipped[:, unit], gradient[:, unit])[0, 1] == pytest.approx(1)
    assert clip_by_weights(tf.constant(0.0), tf.constant(1.0), 0.1).numpy() == 0


def test_gradients_are_clipped(tmp_path):
    """With SGD in the place of AMSGrad, the step is as long as the clipped gradient."""
    trainer = trainer_of(configuration(max_grad_norm=1e-3), tmp_path)
    before = weights_of(trainer)
    trainer.training.compile(optimizer=tf.keras.optimizers.legacy.SGD(1.0))
    batch = next(iter(trainer._training_data(0)))
    logs = trainer.training.train_step(batch)
    assert float(logs["gradient_norm"]) > 1
    after = weights_of(trainer)
    assert math.sqrt(sum(((after[k] - before[k]) ** 2).sum() for k in before)) == pytest.approx(1e-3, rel=1e-3)


def test_metrics_are_the_papers():
    errors = np.array([[1.0, 0.2], [-3.0, 0.0]])
    properties = {name: Property.of(name, unit) for name, unit in (("a", "eV"), ("b", "D"))}
    table = error_table(properties, {"a": 4.0, "b": 0.5}, dict(zip("ab", errors.T)))
    assert table["targets"]["a"]["mae"] == 2.0 and table["targets"]["b"]["mae"] == 0.1
    assert table["std_mae"] == pytest.approx(100 * (0.5 + 0.2) / 2)
    assert table["log_mae"] == pytest.approx((math.log(0.5) + math.log(0.2)) / 2)
    assert table["targets"]["a"]["rmse"] == pytest.approx(math.sqrt(5)) and table["targets"]["a"]["max"] == 3.0
    assert "eV" in format_table(table) and "mean" in format_table(table)


def test_a_run_leaves_a_folder_that_explains_itself(tmp_path, model_name):
    config = configuration(model_name)
    trainer = trainer_of(config, tmp_path)
    rows = []
    trainer.on_validation = rows.append
    assert trainer.run() is None and trainer.step == 6
    folder = RunFolder(tmp_path)
    assert [row["step"] for row in folder.read_metrics()] == [3, 6] == [row["step"] for row in rows]
    events = list(folder.tensorboard.glob("events*"))
    tags = {v.tag for e in tf.compat.v1.train.summary_iterator(str(events[0])) for v in e.summary.value}
    assert {"train/loss", "train/gradient_norm", "train/learning_rate", "train/steps_per_second"} <= tags
    assert {"validation/mae_U0", "validation/log_mae_U0"} <= tags
    text = report(load(tmp_path), trainer.dataset, folder)
    assert "10 test molecules" in text and "eV" in text
    result = json.loads((tmp_path / "test.json").read_text())
    assert result["molecules"] == 10 and result["targets"]["U0"]["unit"] == "eV"
    for name in ("test_U0.png", "learning_curve.png"):
        assert (folder.plots / name).stat().st_size > 10_000


def test_the_best_model_is_the_average_of_the_weights(tmp_path):
    trainer = trainer_of(configuration(num_steps=3), tmp_path)
    trainer.run()
    saved = named_variables(load(tmp_path).model)
    averages = averaged_values(trainer.optimizer, trainer.predictor.trainable_variables)
    names = {v.ref(): name for name, v in named_variables(trainer.predictor.model).items()}
    for variable, average in zip(trainer.predictor.trainable_variables, averages):
        np.testing.assert_array_equal(saved[names[variable.ref()]], average)
    assert np.abs(averages[0] - trainer.predictor.trainable_variables[0]).max() > 0


def test_a_resumed_run_is_the_uninterrupted_run(tmp_path):
    whole = trainer_of(configuration(num_steps=8), tmp_path / "whole")
    whole.run()
    trainer_of(configuration(num_steps=4), tmp_path / "parts").run()
    shutil.rmtree(tmp_path / "parts" / "tensorboard")
    second = trainer_of(configuration(num_steps=8), tmp_path / "parts")
    assert second.step == 4
    second.run()
    assert_equal_weights(whole, second, rtol=1e-5, atol=1e-7)
    # the short run validated at its own last step, 4; the others are those of the whole run
    steps = [row["step"] for row in RunFolder(tmp_path / "parts").read_metrics()]
    assert steps == [3, 4, 6, 8]
    third = trainer_of(configuration(num_steps=8), tmp_path / "parts")
    assert third.run() is None and third.step == 8


def test_runs_with_the_same_seed_are_equal(tmp_path):
    a, b = (trainer_of(configuration(), tmp_path / name) for name in "ab")
    a.run(), b.run()
    assert_equal_weights(a, b, rtol=1e-6, atol=1e-8)


def test_early_stopping_keeps_the_best(tmp_path):
    # a learning rate at which nothing improves after the first validations
    trainer = trainer_of(configuration(num_steps=60, learning_rate=0.3, patience=2, evaluation_interval=2), tmp_path)
    trainer.run()
    rows = RunFolder(tmp_path).read_metrics()
    assert trainer.step < 60
    best = min(range(len(rows)), key=lambda i: rows[i]["std_mae"])
    assert len(rows) - 1 - best == 2
    valid = trainer.validation.molecules
    store = trainer.predictor.graph_store(valid.N, valid.Z, valid.R)
    predicted = load(tmp_path).predict_store(store, np.arange(len(valid)))
    mae = np.abs(predicted.values - trainer.dataset.labels(valid)).mean()
    assert mae == pytest.approx(rows[best]["mae_U0"], rel=1e-5)


def test_fine_tuning_starts_from_the_other_models_weights(tmp_path):
    trainer_of(configuration(), tmp_path / "first").run()
    config = configuration(init_from=str(tmp_path / "first"))
    second = trainer_of(config, tmp_path / "second", dataset(target="H"))
    first = {name: v.numpy() for name, v in named_variables(load(tmp_path / "first").model).items()}
    for name, value in weights_of(second).items():
        np.testing.assert_array_equal(value, first[name])
    wider = resolve({**config, "model": {**config["model"], "cutoff": 4.0}})
    with pytest.raises(UserError, match=r"its model.cutoff is 5.0, here it is 4.0; its weights need model.cutoff=5.0"):
        trainer_of(wider, tmp_path / "fourth")
    other = resolve({"model": {"name": "dimenet", **SMALL["dimenet"]}, "training": config["training"]})
    with pytest.raises(UserError, match="training.init_from = .*: expected a dimenet, got a dimenet_pp"):
        trainer_of(other, tmp_path / "third")
    deeper = resolve({**config, "model": {**config["model"], "num_blocks": 3}})
    with pytest.raises(UserError, match="training.init_from = .*: no weight"):
        trainer_of(deeper, tmp_path / "fifth")


def test_diverging_training_stops_before_it_is_saved(tmp_path):
    trainer = trainer_of(configuration(learning_rate=1e30, warmup_steps=1), tmp_path)
    with pytest.raises(UserError, match=r"step 2: loss (inf|nan).*not finite.*molecules \(ids\): \d.*learning_rate"):
        trainer.run()
    assert [path.name for path in trainer.checkpoints.paths()] == ["000000-step-0"]


def test_two_replicas_are_one(tmp_path):
    """Two devices with half of every batch each give the weights of one device with the whole batch."""
    assert len(tf.config.list_logical_devices("CPU")) == 2
    one = trainer_of(configuration(strategy="none"), tmp_path / "one")
    two = trainer_of(configuration(strategy="mirrored"), tmp_path / "two")
    assert two.strategy.num_replicas_in_sync == 2
    one.run(), two.run()
    assert_equal_weights(one, two, rtol=1e-5, atol=1e-5)
    a, b = (RunFolder(tmp_path / name).read_metrics() for name in ("one", "two"))
    for row_a, row_b in zip(a, b):
        assert row_a == pytest.approx(row_b, rel=1e-4)


def test_strategies():
    assert make_strategy("auto").num_replicas_in_sync == 1
    with pytest.raises(UserError, match="training.strategy must be one of"):
        make_strategy("miror")


def test_budget_and_several_targets(tmp_path):
    config = configuration(batch_size=None, budget={"edges": 2000}, num_steps=3)
    trainer = trainer_of(config, tmp_path, dataset(target="U0,mu,gap"))
    trainer.run()
    assert set(RunFolder(tmp_path).read_metrics()[0]) >= {"mae_U0", "mae_mu", "mae_gap", "std_mae", "log_mae"}
    assert set(load(tmp_path).units.values()) == {"eV", "D"}


def test_a_weight_of_forces_without_forces_is_refused(tmp_path):
    with pytest.raises(UserError, match="needs forces"):
        trainer_of(configuration(rho_force=10.0), tmp_path)
