"""configs/paper is what docs/recipes.md says."""

from pathlib import Path

import pytest
import tensorflow as tf
import yaml

from dimenet_tf.config.schema import resolve
from dimenet_tf.models import MODELS, build_model
from dimenet_tf.models.hyperparameters import hyperparameters
from helpers.paths import ROOT

FILES = sorted((ROOT / "configs/paper").glob("*.yaml"))
# column of the documented table, and the number of trainable parameters
RECIPES = {"qm9_dimenet": (1, 2_100_070), "qm9_dimenet_pp": (2, 1_885_830)}
GEMNET_Q = 2_158_470 + 2 * 128  # here the elements 0 and 94 have an embedding too
RECIPES |= {"md17_gemnet": (1, GEMNET_Q), "md17_ccsd_gemnet": (2, GEMNET_Q), "coll_gemnet": (3, GEMNET_Q)}
RECIPES |= {"qm9_painn": (1, 589_057), "md17_painn": (2, 589_057)}
RECIPES |= {"qm9_spherenet": (1, 1_898_566), "md17_spherenet": (2, 1_898_566)}
DPGN = 3_096_460
RECIPES |= {"qm9_dpgn": (1, DPGN), "md17_dpgn": (2, DPGN)}
OC20 = {f"oc20_is2re_{model}": i for i, model in enumerate(("spherenet", "dimenet_pp", "painn", "gemnet_t"), 1)}
HEADINGS = {"dpgn": "DPGN", "gemnet": "GemNet", "painn": "PaiNN", "spherenet": "SphereNet"}


def documented(file: str) -> list[list[str]]:
    """Rows of the table of the models of a file's family."""
    heading = "OC20" if file in OC20 else HEADINGS.get(file.split("_")[-1], "DimeNet on QM9")
    section = (ROOT / "docs/recipes.md").read_text().split(f"## {heading}\n")[1].split("\n## ")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines()]
    return [row for row in rows if row[0].startswith("`") and len(row) > 3]


def read(path: Path) -> dict:
    return resolve(yaml.safe_load(path.read_text()))


@pytest.mark.parametrize("name", [*RECIPES, *OC20])
def test_recipes_are_the_documented_ones(name):
    given = yaml.safe_load((ROOT / f"configs/paper/{name}.yaml").read_text())
    resolved = read(ROOT / f"configs/paper/{name}.yaml")
    rows = documented(name)
    column = OC20[name] if name in OC20 else RECIPES[name][0]
    shown = {key.strip("`"): row[column - 1] for key, *row in rows}
    for key, expected in shown.items():
        section, option = key.split(".")
        assert expected == ("" if option not in given[section] else str(resolved[section][option])), key
    for section, options in given.items():  # what a recipe says is documented, but for what its name says
        for option in set(options) - {"name", "target", "molecule", "triplets_only", "direct_forces"}:
            assert f"{section}.{option}" in shown


def test_all_recipes_are_documented():
    text = (ROOT / "docs/recipes.md").read_text()
    for path in FILES:
        assert path.name in text or path.stem in RECIPES


@pytest.mark.parametrize(
    "path", [path for path in FILES if "dimenet" in path.stem and path.stem not in OC20], ids=lambda path: path.stem
)
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


@pytest.mark.parametrize("name", [name for name in RECIPES if not name.startswith("md17")])
def test_recipes_have_the_published_sizes(name):
    model = build_model(**read(ROOT / f"configs/paper/{name}.yaml")["model"])
    assert sum(int(tf.size(weight)) for weight in model.trainable_weights) == RECIPES[name][1]


def test_recipes_of_painn():
    """One model; training as in the paper, with an epoch between validations and lambda of its AdamW = 0.01."""
    qm9, md17 = (read(ROOT / f"configs/paper/{name}_painn.yaml") for name in ("qm9", "md17"))
    assert qm9["model"] == md17["model"]
    differing = {key for key in qm9["training"] if qm9["training"][key] != md17["training"][key]}
    of_size = {"num_steps", "batch_size", "learning_rate", "evaluation_interval"}
    assert differing == {*of_size, "rho_force"} and md17["training"]["rho_force"] == 0.95
    for config in (qm9, md17):
        training = config["training"]
        assert training["evaluation_interval"] == config["data"]["num_train"] // training["batch_size"]
        assert training["weight_decay"] == 0.01
        assert training["decay_rate"] == 1 and training["plateau_factor"] == 0.5


def test_recipes_of_dpgn():
    """One model, of the library's defaults."""
    qm9, md17 = (yaml.safe_load((ROOT / f"configs/paper/{name}_dpgn.yaml").read_text()) for name in ("qm9", "md17"))
    assert qm9["model"] == md17["model"]
    assert qm9["model"].items() - {("name", "dpgn")} <= hyperparameters(MODELS["dpgn"]).items()


def test_recipes_of_spherenet():
    """One model of the published size; epochs of 110 000 / 32 and 1000 / 4 steps."""
    qm9, md17 = (read(ROOT / f"configs/paper/{name}_spherenet.yaml") for name in ("qm9", "md17"))
    assert qm9["model"] == md17["model"]
    for config, epoch, epochs in ((qm9, 3438, (300, 50, 3)), (md17, 250, (2000, 200, 3))):
        of_training = (config["training"][key] for key in ("num_steps", "decay_steps", "warmup_steps"))
        assert [steps / epoch for steps in of_training] == list(epochs)


def test_recipes_of_oc20():
    """Epochs of 10 000 / 16, 10 000 / 2 and 460 328 / 32 steps; the same data, energies as adsorption energies."""
    configs = {name: read(ROOT / f"configs/paper/{name}.yaml") for name in OC20}
    for (name, config), epoch, epochs in zip(configs.items(), (625, 5000, 14386, 14386), (30, 20, 80, 80)):
        training = config["training"]
        assert training["evaluation_interval"] == epoch and training["num_steps"] == epochs * epoch, name
        assert config["data"] == configs["oc20_is2re_painn"]["data"]
    assert configs["oc20_is2re_spherenet"]["training"]["warmup_steps"] == 3 * 625
    assert configs["oc20_is2re_spherenet"]["training"]["decay_steps"] == 10 * 625
