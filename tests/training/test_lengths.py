"""Lengths of training: steps, epochs and hours, what follows from them, and runs that are made longer."""

import signal

import numpy as np
import pytest
import yaml

from dimenet_tf.commands.configuration import given
from dimenet_tf.config.build import training_config
from dimenet_tf.config.schema import resolve
from dimenet_tf.config.settings import LENGTHS, SHARES, Length, TrainingConfig, with_one_length
from dimenet_tf.errors import UserError
from dimenet_tf.runs.folder import RunFolder
from dimenet_tf.training.optimizer import learning_rate
from dimenet_tf.training.schedules import WarmupDecay
from dimenet_tf.training.trainer import Trainer
from helpers.paths import CONFIGS
from helpers.training import assert_equal_weights, configuration, trainer_of, weights_of

AUTO = dict.fromkeys(SHARES, "auto")


def rate_at(step: int, length: Length, config: TrainingConfig) -> float:
    """Learning rate of a step as a share of the configured one."""
    schedule = WarmupDecay(1.0, length.warmup_steps, length.decay_steps, config.decay_rate, decay=config.decay)
    return float(schedule(step))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
@pytest.mark.parametrize("num_steps", [500, 5000, None])
def test_the_learning_rate_of_a_recipe_ends_at_its_decay_rate(path, num_steps):
    given = yaml.safe_load(path.read_text())
    if num_steps is not None:
        given["training"]["num_steps"] = num_steps
    config = training_config(resolve(given))
    length = Length.of(config.num_steps, config)
    assert rate_at(length.num_steps, length, config) == pytest.approx(config.decay_rate, rel=1e-4)
    middle = (1 + config.decay_rate) / 2 if config.decay == "cosine" else config.decay_rate**0.5
    assert rate_at(length.num_steps // 2, length, config) == pytest.approx(middle, rel=1e-2)
    assert length.num_steps // length.evaluation_interval >= 20
    assert length.warmup_steps <= length.num_steps / 15


@pytest.mark.parametrize(
    "num_steps, expected",
    [
        (1, (1, 1, 1)),
        (500, (33, 500, 25)),
        (2000, (100, 2000, 100)),  # as the recipes of the embedded sample had them
        (10_000, (100, 10_000, 500)),
        (3_000_000, (3000, 3_000_000, 10_000)),  # the papers' warm-up and interval
    ],
)
def test_shares_of_the_length(num_steps, expected):
    assert Length.of(num_steps, TrainingConfig()) == Length(num_steps, *expected)


def test_settings_that_are_given_stay():
    config = TrainingConfig(num_steps=5000, decay_steps=1500, warmup_steps=0)
    length = Length.of(5000, config)
    assert length == Length(5000, 0, 1500, 250)
    assert length.summary(config) == "5000 steps (auto: validation every 250; set: warm-up 0, decay over 1500)"


def test_steps_in_a_time():
    config = TrainingConfig()
    assert Length.in_time(100, 0.1, 1.0, config).num_steps == 800  # and 20 validations
    assert Length.in_time(0, 0.1, 1.0, config).num_steps == 1
    fixed = TrainingConfig(evaluation_interval=10)
    assert Length.in_time(100, 1.0, 10.0, fixed).num_steps == 50


def test_one_length():
    assert resolve({"training": {"epochs": 20}})["training"]["num_steps"] is None
    resolved = resolve({"training": {"hours": 2}})
    assert resolve(resolved) == resolved and resolved["training"]["hours"] == 2.0
    old = {"num_steps": 1500, "epochs": None, "hours": None, "batch_size": 4}
    assert with_one_length(old, {"epochs": 3}) == {**old, "num_steps": None}
    assert with_one_length(old, {"batch_size": 3}) == old


def test_a_length_on_the_command_line_replaces_others():
    def lengths(*arguments):
        training = given(["dimenet", *arguments])["training"]
        return {key: training.get(key) for key in LENGTHS if training.get(key) is not None}

    assert lengths() == lengths("seed=3") == lengths("training.epochs=None") == {"num_steps": 1500}
    assert lengths("training.epochs=2") == {"epochs": 2}
    both = {"epochs": 2, "num_steps": 3}  # refused later
    assert lengths("training.epochs=2", "training.num_steps=3") == both


def test_epochs_of_a_batch_size_and_of_a_budget(tmp_path):
    trainer = trainer_of(configuration(num_steps=None, epochs=2.5, **AUTO), tmp_path / "size")
    assert trainer.length == Length.of(round(2.5 * 40 / 8), TrainingConfig())
    assert trainer.length_lines == [
        "length: 12 steps = 2.5 epochs (auto: warm-up 1, decay over 12, validation every 1)"
    ]
    budget = {"batch_size": None, "budget": {"edges": 2000}}
    trainer = trainer_of(configuration(num_steps=None, epochs=3, **AUTO, **budget), tmp_path / "budget")
    first = trainer.batches.epoch(0)
    assert sum(map(len, first)) == 40 and trainer.length.num_steps == 3 * len(first)


def test_a_run_of_auto_lengths_is_resumed_as_it_was(tmp_path, monkeypatch):
    """The checkpoint has the schedule: a later version with other shares does not change it."""
    config = configuration(num_steps=None, epochs=1, **AUTO)
    whole = trainer_of(config, tmp_path / "whole")
    whole.run()
    assert whole.step == 5
    first = trainer_of(config, tmp_path / "parts")
    validate = first._validate

    def stop_at_the_second(*arguments):
        validate(*arguments)
        if first.step == 2:
            first.interrupt.signal = signal.SIGINT

    first._validate = stop_at_the_second
    assert first.run() == signal.SIGINT and first.step == 2
    monkeypatch.setattr(Length, "of", None)
    second = trainer_of(config, tmp_path / "parts")
    assert second.length == whole.length and len(second.length_lines) == 1
    assert second.run() is None and second.step == 5
    assert_equal_weights(whole, second, rtol=1e-5, atol=1e-7)


def test_a_run_is_made_longer(tmp_path):
    first = trainer_of(configuration(num_steps=4, **AUTO), tmp_path)
    first.run()
    low = learning_rate(first.optimizer)
    assert low == pytest.approx(1e-3 * 0.01, rel=1e-4)
    second = trainer_of(configuration(num_steps=8, **AUTO), tmp_path)
    high = learning_rate(second.optimizer)
    assert high == pytest.approx(1e-3 * 0.1, rel=1e-4)
    assert second.length_lines[1] == (
        "length: 8 steps instead of 4; from step 4 on the learning rate follows the schedule of the new length "
        "(decay over 8 instead of 4): it rises from 1e-05 to 0.0001"
    )
    assert second.run() is None and second.step == 8
    assert RunFolder(tmp_path).read_metrics()[-1]["learning_rate"] == pytest.approx(1e-3 * 0.01, rel=1e-4)
    third = trainer_of(configuration(num_steps=8, **AUTO), tmp_path)
    assert len(third.length_lines) == 1
    shorter = trainer_of(configuration(num_steps=5, **AUTO), tmp_path)
    assert shorter.length_lines[1].startswith("length: the run has already made 8 steps, so it makes no further one")
    assert shorter.run() is None and shorter.step == 8


def test_a_run_with_given_steps_keeps_its_schedule(tmp_path):
    first = trainer_of(configuration(num_steps=4), tmp_path)
    first.run()
    second = trainer_of(configuration(num_steps=8), tmp_path)
    expected = "8 steps instead of 4; the schedule of the learning rate is unchanged (decay over 4000000)"
    assert second.length_lines[1] == f"length: {expected}"
    assert learning_rate(second.optimizer) == learning_rate(first.optimizer)


def test_a_run_of_an_earlier_version_is_made_longer(tmp_path):
    """Its checkpoints do not have the length; its config.yaml has the numbers."""
    config = configuration(num_steps=4, decay_steps=4)
    first = trainer_of(config, tmp_path)
    first.run()
    first.folder.write_config(config)
    first.state.length = None
    first.checkpoints.save(first.step)
    assert len(trainer_of(config, tmp_path).length_lines) == 1
    longer = trainer_of(configuration(num_steps=12, decay_steps=4), tmp_path).length_lines
    assert "12 steps instead of 4; the schedule of the learning rate is unchanged (decay over 4)" in longer[1]
    assert longer[2].startswith("WARNING: training.decay_steps = 4: the learning rate falls to 1e-06 of its start")
    longer = trainer_of(configuration(num_steps=12, decay_steps="auto"), tmp_path).length_lines
    assert "decay over 12 instead of 4): it rises from 1e-05 to 0.000215" in longer[1]


@pytest.fixture
def slow_steps(monkeypatch):
    """Steps are made and timed, but ten minutes are taken for the time of each."""
    time_steps, calls = Trainer._time_steps, []

    def ten_minutes(self, number):
        calls.append(number)
        time_steps(self, number)
        return 0.0, 600.0

    monkeypatch.setattr(Trainer, "_time_steps", ten_minutes)
    return calls


def test_a_run_of_hours_is_that_of_its_steps(tmp_path, slow_steps, capsys):
    config = configuration(num_steps=None, hours=1.0, **AUTO)
    run = trainer_of(config, tmp_path / "hours")
    assert run.length is None and "1 hours; the speed of the first steps decides" in run.length_lines[0]
    assert run.run() is None and run.step == 5 and slow_steps == [4, 4]
    printed = capsys.readouterr().out
    assert "1 hours at 600 s for a step" in printed and "5 steps (auto: warm-up 1, decay over 5" in printed
    same = trainer_of(configuration(num_steps=5, **AUTO), tmp_path / "steps")
    same.run()
    assert_equal_weights(same, run, rtol=1e-5, atol=1e-7)
    assert [row["step"] for row in RunFolder(tmp_path / "hours").read_metrics()] == [1, 2, 3, 4, 5]
    again = trainer_of(config, tmp_path / "hours")
    assert again.length == run.length and len(again.length_lines) == 1
    longer = trainer_of({**config, "training": {**config["training"], "hours": 2.0}}, tmp_path / "hours")
    assert longer.length.num_steps == 11 and "11 steps instead of 5" in longer.length_lines[1]
    assert slow_steps == [4, 4]  # nothing was measured again
    with pytest.raises(UserError, match="training.hours = 1 needs a run that was started with training.hours"):
        trainer_of(config, tmp_path / "steps")


def test_a_signal_while_the_speed_is_measured_leaves_a_new_run(tmp_path, slow_steps, monkeypatch):
    config = configuration(num_steps=None, hours=1.0, **AUTO)
    run = trainer_of(config, tmp_path)
    start = weights_of(run)
    monkeypatch.setattr(run.validation, "run", lambda *_: setattr(run.interrupt, "signal", signal.SIGTERM))
    assert run.run() == signal.SIGTERM and run.step == 0 and run.length is None
    again = trainer_of(config, tmp_path)
    assert again.step == 0 and again.length is None
    for name, value in weights_of(again).items():
        np.testing.assert_array_equal(start[name], value)
