"""Defaults and checks of configurations: each key, its type and its range.

The keys of the `model` section are the constructor arguments of the models. Therefore the functions here import the
models and TensorFlow, which importing this module does not.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from dimenet_tf.config.settings import AUTO, DECAYS, SHARES, TrainingConfig, check_length, with_one_length
from dimenet_tf.data.dataset import DataConfig
from dimenet_tf.errors import UserError, check_choice, unknown_name
from dimenet_tf.properties.loss_kinds import LOSSES
from dimenet_tf.runs.folder import upgraded

DERIVED = ("num_targets", "num_vectors")  # hyperparameters that follow from other keys


def defaults(model_name: str = "dimenet") -> dict[str, Any]:
    """Return the complete default configuration for a model.

    Examples
    --------
    >>> defaults("painn")["model"]["cutoff"]
    5.0
    """
    from dimenet_tf.models import MODELS, find_model
    from dimenet_tf.models.hyperparameters import hyperparameters

    model_name = find_model(model_name, "model.name")
    model = {k: v for k, v in hyperparameters(MODELS[model_name]).items() if k not in (*DERIVED, "seed")}
    return {
        "seed": 42,
        "precision": "float32",
        "run": None,
        "model": {"name": model_name, **model},
        "data": dataclasses.asdict(DataConfig()),
        "training": dataclasses.asdict(TrainingConfig()),
    }


def resolve(given: Mapping[str, Any]) -> dict[str, Any]:
    """Fill a configuration up with defaults and check it.

    Raises
    ------
    UserError
        For a key that does not exist or a value of the wrong type.

    Examples
    --------
    >>> config = resolve({"model": {"name": "PaiNN"}, "data": {"target": "mu"}})
    >>> config["model"]["name"], config["data"]["target"], config["training"]["loss"]
    ('painn', 'mu', 'dimenet')
    """
    given = upgraded(given)  # keys of a run of an earlier version
    model = given.get("model", {})
    if not isinstance(model, Mapping):
        raise UserError("model must be a section; name the architecture by model.name")
    complete = defaults(model.get("name", "dimenet"))
    if "name" in model:
        given = {**given, "model": {**model, "name": complete["model"]["name"]}}
    if isinstance(given.get("training"), Mapping):  # the default length is one in steps
        complete["training"] = with_one_length(complete["training"], given["training"])
    _fill(complete, given, "")
    _check_values(complete)
    return complete


def _fill(complete: dict, given: Mapping, section: str) -> None:
    from dimenet_tf.models import unknown_hyperparameter

    for key, value in given.items():
        path = f"{section}.{key}" if section else key
        if key not in complete:
            if section == "model" and key not in DERIVED:
                raise unknown_hyperparameter(complete["name"], key, complete, "model.")
            everywhere = [f"{s}.{k}" for s in ("model", "data", "training") for k in defaults()[s]]
            known = [f"{section}.{k}" for k in complete] if section else [*complete, *everywhere]
            raise unknown_name("key", path, known)
        if not section and isinstance(complete[key], dict):
            if not isinstance(value, Mapping):
                raise UserError(f"{key} is a section: set {key}.KEY, not {key} itself")
            _fill(complete[key], value, key)
        else:
            complete[key] = _checked(path, value, complete[key])


_AUTO_PATHS = tuple(f"training.{key}" for key in SHARES)

# types of the keys whose default (None, a string or a container) does not show them
_TYPES = {
    "run": (str, type(None)),
    "data.name": (str, type(None)),
    "data.path": (str, type(None)),
    "data.target": (str, list, tuple),
    "data.num_train": (int, type(None)),
    "data.num_valid": (int, type(None)),
    "data.heads": (Mapping,),
    "data.references": (str, Mapping),
    "data.units": (Mapping,),
    "data.keys": (Mapping,),
    "data.molecule": (str, type(None)),
    "data.relaxations": (str, type(None)),
    "training.num_steps": (int, type(None)),
    "training.epochs": (float, type(None)),
    "training.hours": (float, type(None)),
    **{path: (int, str) for path in _AUTO_PATHS},
    "training.rho_force": (float, type(None)),
    "training.rho_stress": (float, type(None)),
    "training.weights": (Mapping,),
    "data.cache": (str, type(None)),
    "data.max_atoms": (int, type(None)),
    "training.batch_size": (int, type(None)),
    "training.budget": (Mapping, type(None)),
    "training.patience": (int, type(None)),
    "training.max_grad_ratio": (float, type(None)),
    "training.init_from": (str, type(None)),
}


def _checked(path: str, value: Any, default: Any) -> Any:
    from dimenet_tf.models.hyperparameters import check_type

    if path in _AUTO_PATHS and (isinstance(value, bool) or not isinstance(value, int)) and value != AUTO:
        raise UserError(f"{path} must be an integer or {AUTO}; got {value!r}")
    return check_type(path, value, _TYPES.get(path, (type(default),)))


# numbers of the `training` section that may be 0; all others must be positive
_MAY_BE_ZERO = "warmup_steps ema_decay histogram_interval weight_decay plateau_cooldown plateau_smoothing".split()


def _check_values(config: dict) -> None:
    from dimenet_tf.models import MODELS, PRECISIONS
    from dimenet_tf.models.hyperparameters import check_numbers

    check_choice("precision", config["precision"], PRECISIONS)
    check_numbers(config["model"], MODELS[config["model"]["name"]].zero_allowed(), "model.")
    check_numbers(config["training"], _MAY_BE_ZERO, "training.")
    check_length(config["training"])
    for section in ("units", "keys", "heads"):
        for name, value in config["data"][section].items():
            if not isinstance(value, str):
                raise UserError(f"data.{section}.{name} = {value!r} must be a string")
    weights = config["training"]["weights"]
    for name, value in weights.items():
        if isinstance(value, str):
            value = weights[name] = _checked(f"training.weights.{name}", value, 1.0)  # YAML reads 1e-2 as a string
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < math.inf:
            raise UserError(f"training.weights.{name} = {value!r} must be a number, at least 0")
    share = config["training"]["weight_decay"] * config["training"]["learning_rate"]
    if share >= 1:
        raise UserError(
            "training.weight_decay times training.learning_rate is the share that each step takes from a weight: it "
            f"must be less than 1; got {share:g}"
        )
    for key in ("ema_decay", "plateau_smoothing"):
        if not 0 <= config["training"][key] < 1:
            raise UserError(f"training.{key} = {config['training'][key]} must be in [0, 1)")
    for key in ("plateau_factor", "decay_rate"):
        if config["training"][key] > 1:
            raise UserError(f"training.{key} = {config['training'][key]} must be at most 1")
    for key, choices in (("loss", tuple(LOSSES)), ("decay", DECAYS)):
        check_choice(f"training.{key}", config["training"][key], choices)
