"""Training with forces, and training until everything is learned."""

import json

import numpy as np
import pytest

from dimenet_tf.config.schema import resolve
from dimenet_tf.predictor import load
from dimenet_tf.runs.folder import RunFolder
from dimenet_tf.training.report import report
from dimenet_tf.training.session import introduction
from helpers.models import SMALL
from helpers.training import (
    assert_equal_weights,
    dataset,
    force_configuration,
    force_dataset,
    trainer_of,
)


def test_a_force_field_that_jumps_is_announced(tmp_path):
    data = force_dataset()
    for torsion in ("published", "smooth"):
        config = force_configuration()
        config = resolve({**config, "model": {"name": "spherenet", **SMALL["spherenet"], "torsion": torsion}})
        trainer = trainer_of(config, tmp_path / torsion, data)
        warnings = [line for line in introduction(trainer, config) if line.startswith("WARNING: model.torsion")]
        assert len(warnings) == (torsion == "published")


def test_forces_are_trained_and_reported(tmp_path):
    config = force_configuration()
    trainer = trainer_of(config, tmp_path, force_dataset())
    trainer.run()
    rows = RunFolder(tmp_path).read_metrics()
    assert {"mae_energy", "mae_forces", "validation_loss"} <= set(rows[0])
    best = load(tmp_path)
    assert best.energy == "energy" and set(best.units) == {"energy", "forces"}
    # the validation loss is Eq. 2 of the averaged weights on the validation frames
    valid, scale = trainer.validation.molecules, best.head["energy"].scale
    store = best.graph_store(valid.N, valid.Z, valid.R)
    prediction = trainer.validation.averaged.predict_store(store, np.arange(len(valid)))
    error = np.abs(prediction.values[:, 0] - valid.target("energy"))
    forces = np.abs(prediction.forces - valid.target("forces"))
    ends = np.cumsum(valid.N)
    losses = [e + 100 * forces[end - n : end].mean() for e, n, end in zip(error, valid.N, ends)]
    assert rows[-1]["validation_loss"] == pytest.approx(np.mean(losses) / scale, rel=1e-6)
    text = report(best, trainer.dataset, RunFolder(tmp_path))
    assert "MAE of energy: " in text and " kcal/mol/Ang = " in text and " meV/Ang" in text
    assert "C2H6O" in text and "C2H5O" in text
    result = json.loads((tmp_path / "test.json").read_text())
    frames = {name: t["molecules"] for name, t in result["types"].items()}
    assert sum(frames.values()) == result["molecules"] == 44
    assert (tmp_path / "plots/test_forces.png").stat().st_size > 10_000
    # what predicts no forces at all has their mean absolute value for its error
    test = trainer.dataset.container.select(trainer.dataset.split.test)
    assert result["mae_of_per_element_fit"]["forces"] == pytest.approx(np.abs(test.target("forces")).mean())


@pytest.mark.parametrize("loss", ["gemnet", pytest.param("dimenet", marks=pytest.mark.slow)])
def test_two_replicas_are_one_with_forces(tmp_path, loss):
    trainers = []
    for strategy in ("none", "mirrored"):
        config = force_configuration(strategy=strategy, loss=loss, weight_decay=10.0, max_grad_ratio=0.1)
        trainers.append(trainer_of(config, tmp_path / strategy, force_dataset(partial=True)))
        trainers[-1].run()
    assert_equal_weights(*trainers, rtol=1e-4, atol=1e-5)


def test_a_resumed_run_with_forces_is_the_uninterrupted_run(tmp_path):
    def configured(**changes) -> dict:
        return force_configuration(
            weight_decay=10.0, plateau_factor=0.5, plateau_patience=1, plateau_cooldown=1, **changes
        )

    whole = trainer_of(configured(), tmp_path / "whole", force_dataset())
    whole.run()
    trainer_of(configured(num_steps=2), tmp_path / "parts", force_dataset()).run()
    second = trainer_of(configured(), tmp_path / "parts", force_dataset())
    assert second.step == 2
    second.run()
    assert_equal_weights(whole, second, rtol=1e-5, atol=1e-7)


def test_the_learning_rate_halves_on_a_plateau(tmp_path):
    """Weights that stay as they are (a learning rate of almost 0) give the same validation loss each time."""
    still = {"learning_rate": 1e-30, "decay_rate": 1.0, "warmup_steps": 1}
    config = force_configuration(**still, evaluation_interval=1, plateau_factor=0.5, plateau_patience=2)
    trainer_of(config, tmp_path, force_dataset()).run()
    rates = [row["learning_rate"] for row in RunFolder(tmp_path).read_metrics()]
    np.testing.assert_allclose(rates, [1e-30, 1e-30, 1e-30, 0.5e-30], rtol=1e-6)


@pytest.mark.slow
def test_overfits_fifty_molecules(tmp_path, model_name):
    """To under 1 % of the error before training."""
    size = {"emb_size": 32, "num_blocks": 2}
    config = resolve(
        {
            "model": {"name": model_name, **size, "output_init": "zeros"},
            "training": {
                "num_steps": 600,
                "batch_size": 25,
                "learning_rate": 2e-3,
                "warmup_steps": 30,
                "decay_steps": 600,
                "decay_rate": 0.003,
                "ema_decay": 0.9,
                "evaluation_interval": 600,
            },
        }
    )
    data = dataset(train=50)
    trainer = trainer_of(config, tmp_path, data)

    def error() -> float:
        predicted = trainer.validation.averaged.predict_store(trainer.store, np.arange(len(data.split.train)))
        return float(np.abs(predicted.values - data.targets[data.split.train]).mean())

    before = error()
    trainer.run()
    assert error() < 0.01 * before


@pytest.mark.parametrize(("weight_decay", "warned"), [(100.0, True), (0.0, False)])
def test_a_run_that_learns_nothing_is_reported(weight_decay, warned, tmp_path, monkeypatch, capsys):
    """A weight decay in another meaning leaves forces at zero: the run warns once, after a tenth of its steps."""
    monkeypatch.setattr("dimenet_tf.training.trainer.JUDGED_STEPS", 40)
    config = force_configuration(
        weight_decay=weight_decay, num_steps=80, evaluation_interval=20, warmup_steps=5, learning_rate=5e-3
    )
    trainer_of(config, tmp_path / "run", force_dataset()).run()
    printed = capsys.readouterr().out
    assert printed.count("WARNING") == warned
    if warned:
        assert "after 40 of 80 steps the model is no better than without training (MAE of forces" in printed
        assert "training.weight_decay = 100" in printed
