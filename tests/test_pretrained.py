import json

import numpy as np
import pytest
import yaml

import dimenet_tf
from dimenet_tf.config.build import data_config
from dimenet_tf.data import Split
from dimenet_tf.data.dataset import load_container
from dimenet_tf.errors import UserError
from dimenet_tf.predictor.domain import Domain
from dimenet_tf.runs.catalog import pretrained_folders

FOLDERS = pretrained_folders()


def test_all_models_are_there():
    expected = {"dimenet-sample-U0", "dimenet_pp-sample-U0", "dimenet_pp-ethanol_xtb-forces", "painn-ethanol_xtb"}
    assert expected == set(FOLDERS)


@pytest.mark.parametrize("name", FOLDERS)
def test_the_model_card_tells_the_truth(name):
    """Loaded by name, the model has the test error that its card says."""
    predictor = dimenet_tf.load(name)
    card = json.loads((FOLDERS[name] / "test.json").read_text())
    config = yaml.safe_load((FOLDERS[name] / "config.yaml").read_text())
    data = load_container(data_config(config)).select(Split.load(FOLDERS[name] / "split.npz").test)
    store = predictor.graph_store(data.N, data.Z, data.R)
    predicted = predictor.named(predictor.predict_store(store, np.arange(len(data))))
    for target, unit in predictor.units.items():
        mae = np.abs(predicted[target] - data.target(target)).mean()
        assert mae == pytest.approx(card["targets"][target]["mae"], rel=1e-3)
        assert card["targets"][target]["unit"] == unit
        assert mae < 0.15 * card["mae_of_per_element_fit"][target]
        assert f"| {target} | {mae:.2g}"[:-1] in (FOLDERS[name] / "README.md").read_text()


@pytest.mark.parametrize("name", FOLDERS)
def test_the_domain_is_that_of_the_training_molecules(name):
    predictor = dimenet_tf.load(name)
    config = yaml.safe_load((FOLDERS[name] / "config.yaml").read_text())
    data = load_container(data_config(config)).select(Split.load(FOLDERS[name] / "split.npz").train)
    assert predictor.domain == Domain.of(data, predictor.model.cutoff, predictor.domain.ranges)
    assert f"| domain | {predictor.domain.summary()} |" in (FOLDERS[name] / "README.md").read_text()


@pytest.mark.parametrize("name", FOLDERS)
def test_files_are_small(name):
    assert sum(path.stat().st_size for path in FOLDERS[name].iterdir()) < 10e6


def test_a_misspelt_name():
    with pytest.raises(UserError, match="dimenet_pp-sampel-U0; did you mean 'dimenet_pp-sample-U0'"):
        dimenet_tf.load("dimenet_pp-sampel-U0")
