import csv

import numpy as np
import pytest

from dimenet_tf.data.dataset import describe
from dimenet_tf.errors import UserError
from dimenet_tf.predictor import load
from dimenet_tf.runs.folder import RunFolder
from dimenet_tf.training.table1 import PUBLISHED, TARGETS, combine, write_table
from helpers.training import configuration, dataset, trainer_of


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> dict[str, str]:
    """Finished runs of single targets with the same split."""
    folder = tmp_path_factory.mktemp("runs")
    for target in ("homo", "lumo", "mu"):
        config = configuration(num_steps=2, evaluation_interval=2)
        config["data"]["target"] = target
        data = dataset(target=target)
        trainer = trainer_of(config, folder / target, data)
        trainer.folder.describe(config, describe(data))
        data.split.save(trainer.folder.split_file)
        trainer.run()
    return {target: str(folder / target) for target in ("homo", "lumo", "mu")}


def test_the_gap_is_lumo_minus_homo(runs):
    result = combine([runs["mu"], runs["lumo"], runs["homo"]])
    assert list(result["mae"]) == ["mu", "homo", "lumo", "gap"]
    data = dataset(target="homo")
    molecules = data.container.select(data.split.test)
    predicted = {}
    for name in ("homo", "lumo"):
        predictor = load(runs[name])
        store = predictor.graph_store(molecules.N, molecules.Z, molecules.R)
        predicted[name] = predictor.predict_store(store, np.arange(len(molecules))).values[:, 0]
    errors = predicted["lumo"] - predicted["homo"] - molecules.target("gap")
    assert result["mae"]["gap"] == pytest.approx(1000 * np.abs(errors).mean(), rel=1e-5)  # meV
    sigma = {name: data.container.target(name).std() for name in result["mae"]}
    unit = {"mu": 1}
    standard = [result["mae"][n] / unit.get(n, 1000) / sigma[n] for n in sigma]
    assert result["std_mae"] == pytest.approx(100 * np.mean(standard))
    assert result["log_mae"] == pytest.approx(np.mean(np.log(standard)))


def test_files_and_text(runs, tmp_path):
    text = write_table(combine([runs["mu"]]), tmp_path)
    assert "0.0286" in text and "meV" in text and "logMAE" in text
    with (tmp_path / "table1.csv").open() as file:
        rows = list(csv.reader(file))
    assert [row[0] for row in rows[1:13]] == list(TARGETS) and rows[0][3:] == list(PUBLISHED)
    assert (tmp_path / "table1.png").stat().st_size > 10_000


def test_mistakes(runs, tmp_path):
    with pytest.raises(UserError, match="predicts mu, and so does another"):
        combine([runs["mu"], runs["mu"]])
    with pytest.raises(UserError, match="no run folder"):
        combine([str(tmp_path)])
    other = RunFolder(runs["lumo"])
    split = other.split_file.read_bytes()
    dataset(train=30, target="lumo").split.save(other.split_file)
    try:
        with pytest.raises(UserError, match="different test molecules"):
            combine([runs["homo"], runs["lumo"]])
    finally:
        other.split_file.write_bytes(split)


def test_published_values_are_the_papers():
    """Spot checks against the papers' text."""
    column = {name: dict(zip(TARGETS, values)) for name, values in PUBLISHED.items()}
    assert all(len(values) == 12 for values in PUBLISHED.values())
    assert column["DimeNet"]["U0"] == 8.02 and column["DimeNet"]["r2"] == 0.331
    assert column["DimeNet++"]["G"] == 7.56 and column["SphereNet"]["U"] == 7.33
    assert column["PaiNN"]["mu"] == 0.012 and column["DPGN"]["gap"] == 52.7
