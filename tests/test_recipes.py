"""configs/paper is what docs/recipes.md says."""

from pathlib import Path

import numpy as np
import pytest
import yaml

from dimenet_tf.config import resolve
from dimenet_tf.models import build_model

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / "configs/paper").glob("*.yaml"))
DIMENETS = [path for path in FILES if "dimenet" in path.stem]
SIZES = [("qm9_dimenet", 2_100_070), ("qm9_dimenet_pp", 1_885_830), ("qm9_painn", 589_057), ("md17_painn", 589_057)]
COLUMNS = {"qm9_dimenet": 1, "qm9_dimenet_pp": 2}


def documented() -> list[list[str]]:
    lines = (ROOT / "docs/recipes.md").read_text().splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| `")]
    return [row for row in rows if "." in row[0] and not row[0].endswith(".yaml`")]


def read(path: Path) -> dict:
    return resolve(yaml.safe_load(path.read_text()))


@pytest.mark.parametrize("name", COLUMNS)
def test_recipes_are_the_documented_ones(name):
    given = yaml.safe_load((ROOT / f"configs/paper/{name}.yaml").read_text())
    resolved = read(ROOT / f"configs/paper/{name}.yaml")
    rows = documented()
    assert len(rows) == 28
    for key, *values, _ in rows:
        section, option = key.strip("`").split(".")
        expected = values[COLUMNS[name] - 1]
        assert expected == ("" if option not in given[section] else str(resolved[section][option])), key


def test_all_recipes_are_documented():
    text = (ROOT / "docs/recipes.md").read_text()
    for path in FILES:
        assert path.name in text or path.stem in COLUMNS


@pytest.mark.parametrize("path", DIMENETS, ids=lambda path: path.stem)
def test_recipes_differ_in_what_their_names_say_only(path):
    config, base = read(path), read(ROOT / "configs/paper/qm9_dimenet.yaml")
    if path.stem == "md17_dimenet":
        assert config["model"] == base["model"]
        changed = {"num_steps": 100_000, "rho_force": 100.0, "evaluation_interval": 1000}
        assert config["training"] == {**base["training"], **changed}
        return
    assert config["training"] == base["training"]
    differing = {
        "qm9_dimenet_multitarget": {},
        "qm9_dimenet_multitarget_separate": {"separate_output_blocks": True},
        "qm9_dimenet_gaussian": {"radial_basis": "gaussian", "num_radial": 64},
        "qm9_dimenet_no_angles": {"num_spherical": 1},
        "qm9_dimenet_nodes": {"embeddings": "nodes"},
    }
    if path.stem in differing:
        assert config["model"] == {**base["model"], **differing[path.stem]}
        assert len(config["data"]["target"]) == 11 and "gap" not in config["data"]["target"]


@pytest.mark.parametrize("name, parameters", SIZES)
def test_recipes_have_the_published_sizes(name, parameters):
    model = build_model(**read(ROOT / f"configs/paper/{name}.yaml")["model"])
    assert sum(np.prod(variable.shape) for variable in model.trainable_variables) == parameters


def test_recipes_of_painn():
    """One model; training as in the paper, with an epoch between validations and lambda of its AdamW = 0.01."""
    qm9, md17 = (read(ROOT / f"configs/paper/{name}_painn.yaml") for name in ("qm9", "md17"))
    assert qm9["model"] == md17["model"]
    differing = {key for key in qm9["training"] if qm9["training"][key] != md17["training"][key]}
    of_size = {"num_steps", "batch_size", "learning_rate", "weight_decay", "evaluation_interval"}
    assert differing == {*of_size, "rho_force"} and md17["training"]["rho_force"] == 0.95
    for config in (qm9, md17):
        training = config["training"]
        assert training["evaluation_interval"] == config["data"]["num_train"] // training["batch_size"]
        assert training["weight_decay"] == pytest.approx(0.01 * training["learning_rate"])
        assert training["decay_rate"] == 1 and training["plateau_factor"] == 0.5
