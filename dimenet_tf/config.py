"""Configuration -> objects. Every key is checked: what is not known is an error that names the closest right key."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from dimenet_tf.data.container import DataContainer
from dimenet_tf.data.dataset import DataConfig, Dataset
from dimenet_tf.domain import Domain
from dimenet_tf.errors import UserError, unknown_name
from dimenet_tf.graph import GraphStore
from dimenet_tf.heads import Dipole, DipoleMagnitude, Head, choose_heads
from dimenet_tf.models import MODELS, PRECISIONS, find_model, unknown_hyperparameter
from dimenet_tf.models.hyperparameters import MAY_BE_ZERO, check_numbers, check_type, hyperparameters
from dimenet_tf.predictor import Predictor
from dimenet_tf.training.losses import RHO_FORCE
from dimenet_tf.training.schedules import DECAYS
from dimenet_tf.training.settings import AUTO, SHARES, TrainingConfig, check_length, upgraded, with_one_length

DERIVED = ("num_targets", "num_vectors")  # hyperparameters that follow from other keys


def defaults(model_name: str = "dimenet") -> dict[str, Any]:
    """Return the complete default configuration for a model."""
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
    """
    given = upgraded(given)  # the config.yaml of a run says in whose version's meaning its keys are
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

# types of the keys whose default is None or a container, which do not show it
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
    "training.num_steps": (int, type(None)),
    "training.epochs": (float, type(None)),
    "training.hours": (float, type(None)),
    **{path: (int, str) for path in _AUTO_PATHS},
    "training.rho_force": (float, type(None)),
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
    if path in _AUTO_PATHS and (isinstance(value, bool) or not isinstance(value, int)) and value != AUTO:
        raise UserError(f"{path} must be an integer or {AUTO}; got {value!r}")
    return check_type(path, value, _TYPES.get(path, (type(default),)))


# numbers of the section training that may be 0; all others must be greater
_MAY_BE_ZERO = "warmup_steps ema_decay histogram_interval weight_decay plateau_cooldown plateau_smoothing".split()


def _check_values(config: dict) -> None:
    if config["precision"] not in PRECISIONS:
        raise UserError(f"precision: '{config['precision']}' is none of {', '.join(PRECISIONS)}")
    check_numbers(config["model"], MAY_BE_ZERO, "model.")
    check_numbers(config["training"], _MAY_BE_ZERO, "training.")
    check_length(config["training"])
    for section in ("units", "keys", "heads"):
        for name, value in config["data"][section].items():
            if not isinstance(value, str):
                raise UserError(f"data.{section}.{name} = {value!r} must be a text")
    weights = config["training"]["weights"]
    for name, value in weights.items():
        if isinstance(value, str):
            value = weights[name] = _checked(f"training.weights.{name}", value, 1.0)  # YAML reads 1e-2 as text
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
    for key, choices in (("loss", tuple(RHO_FORCE)), ("decay", DECAYS)):
        if config["training"][key] not in choices:
            raise UserError(f"training.{key}: '{config['training'][key]}' is none of {', '.join(choices)}")


def data_config(config: Mapping) -> DataConfig:
    """Return the `data` section as its dataclass."""
    return DataConfig(**config["data"])


def training_config(config: Mapping) -> TrainingConfig:
    """Return the `training` section as its dataclass."""
    return TrainingConfig(**config["training"])


FEW_NEIGHBORS = 12  # below, sum_first is faster than harmonics (benchmarks/RESULTS.md)


def choose_by_neighbors(model: Mapping, container: DataContainer) -> str:
    """Return what `aggregation: auto` of DimeNet++ means for these molecules.

    What harmonics cost does not depend on the number of neighbors, what sum_first costs grows with it.
    """
    some = container.select(np.linspace(0, len(container) - 1, min(len(container), 100)).astype(int))
    edges = GraphStore(some.N, some.Z, some.R, model["cutoff"], ()).sizes("edges").sum()
    return "sum_first" if edges < FEW_NEIGHBORS * some.N.sum() else "harmonics"


def has_vectors(model: Mapping) -> bool:
    """Return whether a model (its section) can give vectors: its constructor then has `num_vectors`."""
    return "num_vectors" in hyperparameters(MODELS[model["name"]]) and model.get("vectors", True)


def build_head(model: Mapping, dataset: Dataset) -> Head:
    """Make the head of a model (its section of a resolved configuration) for the targets of a data set."""
    vectors = has_vectors(model)
    heads = choose_heads(dataset.columns.shapes, dataset.config.heads, model.get("extensive", True), vectors)
    if dataset.config.references not in ("auto", "none") and not any(head.additive for head in heads.values()):
        raise UserError(f"data.references = {dataset.config.references}: nothing is added to {', '.join(heads)}")
    parts = []
    for (name, head), unit in zip(heads.items(), dataset.units):
        if head.needs_vector and not vectors:
            choices = ", ".join(other for other in MODELS if has_vectors({"name": other}))
            raise UserError(f"{name} needs a model with vectors, which {model['name']} has not; with them: {choices}")
        if head is DipoleMagnitude and model.get("output_init") == "zeros":
            raise UserError(f"model.output_init: zeros: a length of zero has no slope, {name} would never be learned")
        fit = dataset.reference(name, head.additive)
        options = {"per_element": fit.per_element, "offset": fit.offset} if head.additive else {}
        if issubclass(head, Dipole):
            options["vector"] = vectors
        parts.append(head(name, unit, fit.scale, **options))
    return Head(parts)


def build_predictor(config: Mapping, dataset: Dataset) -> Predictor:
    """Make the untrained predictor that a resolved configuration describes."""
    model = {k: v for k, v in config["model"].items() if k != "name"}
    head = build_head(config["model"], dataset)
    training = dataset.container.select(dataset.split.train)
    model |= {"num_targets": len(head.scalars), "seed": config["seed"]}
    if has_vectors(config["model"]):
        model["num_vectors"] = len(head.with_vector)
    if config["model"]["name"] == "dimenet_pp" and model["aggregation"] == "auto":
        model["aggregation"] = choose_by_neighbors(model, training)
    try:
        energy = "energy" if dataset.has_forces else None
        labels = [name for name, kind in zip(dataset.names, dataset.kinds) if not kind.shape]
        domain = Domain.of(training, model["cutoff"], [*labels, *(["forces"] if dataset.has_forces else [])])
        return Predictor(config["model"]["name"], model, head, training.elements, config["precision"], energy, domain)
    except ValueError as error:
        if str(error).split(":")[0] not in config["model"]:
            raise
        raise UserError(f"model.{error}") from None  # a hyperparameter that does not take this value
