import shutil

import pytest
import yaml

from dimenet_tf.config.build import build_predictor, data_config, training_config
from dimenet_tf.config.schema import defaults, resolve
from dimenet_tf.data import load_dataset, oc20
from dimenet_tf.data.embedded import FOLDER
from dimenet_tf.errors import UserError
from dimenet_tf.layers.aggregation import AGGREGATIONS
from dimenet_tf.models import MODELS
from dimenet_tf.runs.folder import RunFolder
from helpers.paths import CONFIGS, FILES

WRONG = [
    ({"modle": {}}, "unknown key 'modle'; did you mean 'model'"),
    ({"model": {"emb_sise": 3}}, "unknown key 'model.emb_sise'; did you mean 'model.emb_size'"),
    (
        {"model": {"name": "spherenet", "aggregation": "triplets"}},
        "'model.aggregation' is a key of dimenet, dimenet_pp",
    ),
    ({"model": {"name": "painn", "global_cutoff": 7.0}}, "is a key of dpgn; painn has none of that name"),
    ({"model": {"name": "dimnet"}}, "unknown model.name 'dimnet'; did you mean 'dimenet'"),
    ({"model": {"int_emb_size": 64}}, "'model.int_emb_size' is a key of dimenet_pp"),  # one of DimeNet++'s
    ({"model": {"num_targets": 2}}, "unknown key 'model.num_targets'"),
    ({"num_steps": 3}, "unknown key 'num_steps'; did you mean 'training.num_steps'"),
    ({"training": {"num_step": 3}}, "did you mean 'training.num_steps'"),
    ({"training": {"num_steps": "many"}}, "training.num_steps = 'many' must be an integer"),
    ({"training": {"num_steps": 2.5}}, "training.num_steps = 2.5 must be an integer"),
    ({"training": {"num_steps": True}}, "must be an integer"),
    ({"training": {"num_steps": 0}}, "training.num_steps = 0 must be greater than 0"),
    ({"training": {"learning_rate": "fast"}}, "training.learning_rate = 'fast' must be a number"),
    ({"training": {"ema_decay": 1.0}}, r"training.ema_decay = 1.0 must be in \[0, 1\)"),
    ({"training": 3}, "training is a section"),
    ({"model": "dimenet"}, "model must be a section"),
    ({"data": {"target": 3}}, "data.target = 3 must be a string or a list"),
    ({"model": {"cutoff": -5.0}}, "model.cutoff = -5.0 must be greater than 0"),
    ({"training": {"patience": 0}}, "training.patience = 0 must be greater than 0"),
    ({"training": {"warmup_steps": -1}}, "training.warmup_steps = -1 must be at least 0"),
    ({"training": {"learning_rate": float("nan")}}, "training.learning_rate = nan must be greater"),
    ({"model": {"num_bilinear": 0}}, "model.num_bilinear = 0 must be greater than 0"),
    ({"model": {"envelope_exponent": -1}}, "model.envelope_exponent = -1 must be at least 0"),
    ({"data": {"units": {"x": 1}}}, "data.units.x = 1 must be a string"),
    ({"data": {"keys": {"energy": 1}}}, "data.keys.energy = 1 must be a string"),
    ({"data": {"molecule": 3}}, "data.molecule = 3 must be a string or None"),
    ({"training": {"rho_force": "much"}}, "training.rho_force = 'much' must be a number or None"),
    ({"training": {"rho_force": -1}}, "training.rho_force = -1.0 must be greater than 0"),
    ({"training": {"decay_steps": "automatic"}}, "training.decay_steps must be an integer or auto; got 'automatic'"),
    ({"training": {"warmup_steps": 2.5}}, "training.warmup_steps must be an integer or auto; got 2.5"),
    ({"training": {"evaluation_interval": True}}, "training.evaluation_interval must be an integer or auto; got True"),
    ({"training": {"evaluation_interval": 0}}, "training.evaluation_interval = 0 must be greater than 0"),
    (
        {"training": {"num_steps": 1500, "epochs": 20}},
        "expected one length of training, received training.num_steps = 1500 and training.epochs = 20.0; set all but",
    ),
    ({"training": {"epochs": 20, "hours": 2}}, "received training.epochs = 20.0 and training.hours = 2.0"),
    ({"training": {"num_steps": None}}, "the length of training is missing: expected training.num_steps or training.e"),
    ({"training": {"epochs": 0}}, "training.epochs = 0.0 must be greater than 0"),
    ({"training": {"hours": "many"}}, "training.hours = 'many' must be a number or None"),
    ({"precision": "double"}, "precision must be one of"),
]


@pytest.mark.parametrize("given, message", WRONG)
def test_mistakes_are_one_line_that_says_what_to_do(given, message):
    with pytest.raises(UserError, match=message) as error:
        resolve(given)
    assert "\n" not in str(error.value)


def test_a_wrong_choice_of_a_hyperparameter_names_its_key():
    for model, message in (
        ({"conventions": "offical"}, "model.conventions must be one of official, corrected; got 'offical'"),
        ({"embeddings": "nodes", "separate_output_blocks": True}, "model.separate_output_blocks is not available with"),
        ({"radial_basis": "gaussian", "num_radial": 1}, "model.num_radial must be at least 2 for Gaussians; got 1"),
    ):
        config = resolve({"model": model})
        with pytest.raises(UserError, match=message):
            build_predictor(config, load_dataset(data_config(config)))


@pytest.mark.parametrize("name", MODELS)
def test_defaults_are_complete(name):
    config = defaults(name)
    assert resolve(config) == config
    assert config["model"]["name"] == name and config["model"]["cutoff"] == 5.0


def test_values_of_yaml_and_command_line():
    config = resolve({"training": {"learning_rate": "1e-3", "max_grad_norm": 10}, "data": {"target": ("U0", "mu")}})
    assert config["training"]["learning_rate"] == 1e-3 and config["training"]["max_grad_norm"] == 10.0
    assert config["data"]["target"] == ["U0", "mu"]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_configuration_builds_its_predictor(path, tmp_path):
    config = resolve(yaml.safe_load(path.read_text()))
    if config["data"]["name"] is None:  # for the user's own data
        with pytest.raises(UserError, match="missing data: set data.path to a file, or data.name to one of sample"):
            load_dataset(data_config(config))
        config["data"]["path"] = str(FOLDER / "ethanol_xtb.npz")
    if config["data"]["name"] in oc20.FOLDERS:
        source = {"oc20_is2re": "is2re/train", "oc20_s2ef": "s2ef/val_id"}[config["data"]["name"]]
        for split in ("train", "val_id", "val_ood_ads"):
            shutil.copytree(FILES / "oc20" / source, tmp_path / split)
        config["data"]["path"] = str(tmp_path)
    training_config(config)
    predictor = build_predictor(config, load_dataset(data_config(config)))
    assert predictor.model.seed == config["seed"]
    stress = {"stress"} if predictor.has_stress else set()  # of periodic structures
    assert set(predictor.units) == {*data_config(config).target_names, *stress}
    assert predictor.energy == ("energy" if "forces" in predictor.units else None)


@pytest.mark.parametrize(
    "name, data, cutoff, expected",
    [
        ("dimenet_pp", "ethanol_xtb", 5.0, "sum_first"),  # 8 neighbors
        ("dimenet_pp", "sample", 5.0, "harmonics"),  # 14
        ("dimenet_pp", "sample", 2.0, "sum_first"),
        ("dimenet", "sample", 5.0, "sum_first"),
    ],
)
def test_auto_aggregation_goes_by_the_neighbors(name, data, cutoff, expected):
    config = resolve(
        {"model": {"name": name, "cutoff": cutoff, "emb_size": 8, "num_blocks": 1}, "data": {"name": data}}
    )
    config["data"]["target"] = "energy" if data == "ethanol_xtb" else "U0"
    predictor = build_predictor(config, load_dataset(data_config(config)))
    assert predictor.model.aggregation_class is AGGREGATIONS[expected]


def test_the_configuration_of_a_run_of_an_earlier_version_keeps_its_meaning(tmp_path):
    """Before 0.2 the weight decay was not multiplied by the learning rate."""
    folder = RunFolder(tmp_path)
    folder.config_file.write_text("training: {weight_decay: 2.0e-6, learning_rate: 0.002}\n")
    assert folder.read_config()["training"]["weight_decay"] == 0.001
    folder.write_config(resolve(folder.read_config()))
    assert folder.read_config()["training"]["weight_decay"] == 0.001
    assert resolve(yaml.safe_load(folder.config_file.read_text())) == resolve(folder.read_config())


def test_a_weight_decay_that_takes_all_of_a_weight_is_refused():
    with pytest.raises(UserError, match="must be less than 1; got 2"):
        resolve({"training": {"weight_decay": 2000.0, "learning_rate": 1e-3}})
