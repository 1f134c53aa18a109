"""Checkpoints, and what happens to steps that are not finite."""

import re
import shutil

import numpy as np
import pytest
import tensorflow as tf

from dimenet_tf.errors import UserError
from dimenet_tf.runs.events import forget_events_after
from dimenet_tf.runs.folder import RunFolder
from dimenet_tf.training.callbacks import WatchLoss
from dimenet_tf.training.checkpoints import Checkpoints
from dimenet_tf.training.diagnosis import first_not_finite
from helpers.training import assert_equal_weights, configuration, dataset, trainer_of


@pytest.fixture
def checkpoints(tmp_path):
    variable = tf.Variable(0.0)
    return Checkpoints(tf.train.Checkpoint(variable=variable), tmp_path / "checkpoints"), variable


def test_the_newest_is_read_and_two_are_kept(checkpoints):
    saved, variable = checkpoints
    assert saved.restore() == [] and saved.paths() == []
    for step in (5, 10, 10, 7, 7):  # after a step back, a smaller number may be the newer one
        variable.assign(step)
        saved.save(step)
    assert [path.name for path in saved.paths()] == ["000002-step-10", "000004-step-7"]
    variable.assign(-1)
    assert saved.restore() == [] and float(variable) == 7


DAMAGES = {
    "truncated": lambda path: next(path.glob("*.data*")).write_bytes(next(path.glob("*.data*")).read_bytes()[:-3]),
    "changed": lambda path: (path / "state.index").write_bytes(b"x" + (path / "state.index").read_bytes()[1:]),
    "missing": lambda path: (path / "state.index").unlink(),
    "no checksums": lambda path: (path / "sha256.json").write_text("{"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_one_is_reported_and_the_one_before_read(checkpoints, damage):
    saved, variable = checkpoints
    for step in (5, 10):
        variable.assign(step)
        saved.save(step)
    DAMAGES[damage](saved.paths()[-1])
    (line,) = saved.restore()
    assert re.search(r"checkpoints/000001-step-10 is damaged \(.+\) and passed over", line)
    assert float(variable) == 5
    assert (saved.folder / "damaged-000001-step-10").exists()
    saved.save(6)
    assert saved.restore() == [] and [path.name for path in saved.paths()] == ["000000-step-5", "000001-step-6"]


def test_a_run_does_not_start_anew_where_no_checkpoint_is_whole(checkpoints):
    saved, _ = checkpoints
    saved.save(5)
    DAMAGES["truncated"](saved.paths()[0])
    for _ in range(2):  # nor at the second attempt
        with pytest.raises(UserError, match=r"000000-step-5 is damaged .* to start anew, choose another run folder"):
            saved.restore()


def test_leftovers_of_a_killed_process_are_in_nobodys_way(checkpoints):
    saved, _ = checkpoints
    (saved.folder / "new").mkdir(parents=True)
    (saved.folder / "new/state.index").write_bytes(b"half")
    assert saved.restore() == []
    saved.save(3)
    assert [path.name for path in saved.folder.iterdir()] == ["000000-step-3"]


def test_metrics_and_events_of_later_steps_are_forgotten(tmp_path):
    folder = RunFolder(tmp_path)
    writer = tf.summary.create_file_writer(str(folder.tensorboard))
    with writer.as_default():
        for step in range(1, 7):
            tf.summary.scalar("loss", 0.1 * step, step=step)
            folder.append_metrics({"step": step, "loss": 0.1 * step})
    writer.close()
    (path,) = folder.tensorboard.iterdir()
    path.write_bytes(path.read_bytes()[:-5])  # the last record is torn
    folder.metrics_file.write_text(folder.metrics_file.read_text()[:-2])  # and the last line
    assert [row["step"] for row in folder.read_metrics()] == [1, 2, 3, 4, 5]
    for last, left in ((6, [1, 2, 3, 4, 5]), (3, [1, 2, 3]), (0, [])):
        forget_events_after(folder.tensorboard, last, last)
        folder.forget_metrics_after(last)
        events = tf.compat.v1.train.summary_iterator(str(path))
        assert [event.step for event in events if event.summary.value] == left
        assert [row["step"] for row in folder.read_metrics()] == left
    folder.append_metrics({"step": 1, "loss": 0.5})
    assert folder.read_metrics() == [{"step": 1.0, "loss": 0.5}]


def test_a_run_goes_on_from_the_checkpoint_before_a_damaged_one(tmp_path, capsys):
    whole = trainer_of(configuration(num_steps=9), tmp_path / "whole")
    whole.run()
    first = trainer_of(configuration(num_steps=6), tmp_path / "parts")
    first.run()
    DAMAGES["truncated"](first.checkpoints.paths()[-1])
    second = trainer_of(configuration(num_steps=9), tmp_path / "parts")
    assert "000002-step-6 is damaged (wrong checksum of state.data-00000-of-00001)" in capsys.readouterr().out
    assert second.step == 3
    second.run()
    assert [row["step"] for row in RunFolder(tmp_path / "parts").read_metrics()] == [3, 6, 9]
    assert_equal_weights(whole, second, rtol=1e-5, atol=1e-7)


def test_checkpoints_by_the_clock(tmp_path):
    trainer = trainer_of(configuration(num_steps=4, evaluation_interval=4, checkpoint_minutes=1e-9), tmp_path)
    trainer.run()
    names = [path.name.split("-")[2] for path in trainer.checkpoints.paths()]
    assert trainer.checkpoints.paths()[-1].name.startswith("000005") and names == ["3", "4"]


def test_an_unfinished_validation_is_made_again_and_counted_once(tmp_path):
    """The checkpoint is of step 6 already, metrics and TensorBoard have its validation, the best model is older."""
    config = configuration(checkpoint_minutes=1e-9)
    first = trainer_of(config, tmp_path)
    replace, calls = first.folder.replace_best, []

    def stop_at_the_second(write):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        replace(write)

    first.folder.replace_best = stop_at_the_second
    with pytest.raises(KeyboardInterrupt):
        first.run()
    assert first.state.validated == 3 and [row["step"] for row in first.folder.read_metrics()] == [3, 6]
    second = trainer_of(config, tmp_path)
    assert second.step == 6 and second.run() is None
    assert [row["step"] for row in second.folder.read_metrics()] == [3, 6]
    steps = [
        event.step
        for path in second.folder.tensorboard.glob("events*")
        for event in tf.compat.v1.train.summary_iterator(str(path))
        for value in event.summary.value
        if value.tag == "validation/loss"
    ]
    assert sorted(steps) == [3, 6]


def test_fewer_steps_than_are_made_end_at_once(tmp_path):
    trainer_of(configuration(num_steps=5), tmp_path).run()
    again = trainer_of(configuration(num_steps=4), tmp_path)
    again.state.validated = 3  # as if it had been stopped before it validated
    assert again.run() is None and again.step == 5
    assert [row["step"] for row in again.folder.read_metrics()] == [3, 5]


def test_results_without_a_checkpoint_are_not_overwritten(tmp_path):
    trainer_of(configuration(), tmp_path).run()
    shutil.rmtree(tmp_path / "checkpoints")
    with pytest.raises(UserError, match="has results but no checkpoint to resume from: choose another run folder"):
        trainer_of(configuration(), tmp_path)
    assert [row["step"] for row in RunFolder(tmp_path).read_metrics()] == [3, 6]


def test_an_exploding_loss_ends_the_run(tmp_path, monkeypatch):
    monkeypatch.setattr(WatchLoss, "EXPLODED", 1e-3)  # any loss explodes
    trainer = trainer_of(configuration(num_steps=30, evaluation_interval=4), tmp_path)
    with pytest.raises(UserError, match=r"step 5: loss \S+ after a mean of \S+\. Training diverged: try a smaller"):
        trainer.run()
    assert [row["step"] for row in trainer.folder.read_metrics()] == [4]


@pytest.fixture(params=[None, "energy"], ids=["values", "forces"])
def predictor_and_graph(request, tmp_path):
    config = configuration()
    config["model"]["num_blocks"] = 2
    trainer = trainer_of(config, tmp_path)
    predictor = trainer.predictor if request.param is None else trainer.predictor.with_forces("U0")
    return predictor, trainer.store.batch(range(4)).to_tensors()


def test_the_first_layer_that_is_not_finite_is_named(predictor_and_graph):
    predictor, graph = predictor_and_graph
    assert first_not_finite(predictor, graph).startswith("predictions and their gradients are finite")
    kernel = predictor.model.int_blocks[1].dense_ji.kernel
    before = kernel.numpy()
    kernel.assign(np.full_like(before, 1e38))  # finite itself, but not what is made with it
    assert first_not_finite(predictor, graph) == ("the first layer whose output is not finite is int_blocks/1/dense_ji")
    kernel.assign(np.full_like(before, np.nan))
    assert first_not_finite(predictor, graph) == "weight int_blocks/1/dense_ji/kernel is not finite"
    kernel.assign(before)
    assert first_not_finite(predictor, graph).startswith("predictions and their gradients are finite")


@pytest.mark.parametrize("strategy", ["none", "mirrored"])
def test_a_step_that_is_not_finite_changes_no_weight(tmp_path, strategy):
    trainer = trainer_of(configuration(strategy=strategy), tmp_path)
    trainer.targets[:] = np.inf  # as from a damaged label that no check has seen
    twin = trainer_of(configuration(), tmp_path / "twin")
    with pytest.raises(UserError, match=r"step 1: loss inf.*look at the labels of these molecules; molecules \(ids\)"):
        trainer.run()
    assert_equal_weights(twin, trainer, rtol=0, atol=0)


def test_ids_of_the_step_are_named(tmp_path):
    data = dataset()
    trainer = trainer_of(configuration(), tmp_path, data)
    molecules = next(trainer.batches.from_step(0))
    trainer.targets[molecules[3]] = np.inf
    with pytest.raises(UserError) as error:
        trainer.run()
    ids = data.container.id[data.split.train[molecules]]
    assert f"molecules (ids): {', '.join(map(str, ids))}. Training diverged" in str(error.value)


def test_rollback_goes_on_with_a_smaller_learning_rate(tmp_path, capsys):
    config = configuration(
        learning_rate=300.0, on_nan="rollback", num_steps=12, evaluation_interval=4, warmup_steps=1, decay_steps=10
    )
    trainer = trainer_of(config, tmp_path)
    assert trainer.run() is None and trainer.step == 12
    printed = capsys.readouterr().out
    times = re.findall(r"WARNING: step \d+: loss .* Back at step (\d+) with the learning rate times ([\d.]+)", printed)
    assert len(times) == trainer.state.rollbacks > 0
    assert float(trainer.rate) == 0.5**trainer.state.rollbacks == pytest.approx(float(times[-1][1]), rel=1e-2)
    rows = RunFolder(tmp_path).read_metrics()
    assert [row["step"] for row in rows] == [4, 8, 12]
    assert all(np.isfinite(row["loss"]) for row in rows)
    # the smaller rate belongs to the checkpoint
    assert float(trainer_of(config, tmp_path).rate) == float(trainer.rate)


def test_rollback_gives_up(tmp_path, monkeypatch):
    monkeypatch.setattr("dimenet_tf.training.trainer.MAX_ROLLBACKS", 2)  # of 10, which take long
    trainer = trainer_of(configuration(on_nan="rollback"), tmp_path)
    trainer.targets[:] = np.inf
    with pytest.raises(UserError, match="has been halved 2 times: giving up"):
        trainer.run()


def test_choices_of_on_nan(tmp_path):
    with pytest.raises(UserError, match="training.on_nan must be one of stop, rollback; got 'ignore'"):
        trainer_of(configuration(on_nan="ignore"), tmp_path)
