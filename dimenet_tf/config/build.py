"""Make the objects that a resolved configuration describes."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from dimenet_tf.config.settings import TrainingConfig
from dimenet_tf.data.dataset import DataConfig, Dataset
from dimenet_tf.errors import UserError
from dimenet_tf.graph import GraphStore
from dimenet_tf.models import MODELS
from dimenet_tf.models.hyperparameters import hyperparameters
from dimenet_tf.predictor import Predictor
from dimenet_tf.predictor.domain import Domain
from dimenet_tf.properties.heads import Dipole, DipoleMagnitude, Head, choose_heads
from dimenet_tf.structures.container import DataContainer


def data_config(config: Mapping) -> DataConfig:
    """Return the `data` section as its dataclass."""
    return DataConfig(**config["data"])


def training_config(config: Mapping) -> TrainingConfig:
    """Return the `training` section as its dataclass."""
    return TrainingConfig(**config["training"])


def mean_neighbors(cutoff: float, container: DataContainer) -> float:
    """Return how many neighbors an atom of a data set has on average, from at most 100 of its molecules."""
    some = container.select(np.linspace(0, len(container) - 1, min(len(container), 100)).astype(int))
    return float(GraphStore(some.N, some.Z, some.R, cutoff, ()).sizes("edges").sum() / some.N.sum())


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
            raise UserError(f"{name} needs a model with vectors ({choices}); {model['name']} has none")
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
    model |= MODELS[config["model"]["name"]].suited_to(model, lambda: mean_neighbors(model["cutoff"], training))
    try:
        energy = "energy" if dataset.has_forces else None
        labels = [name for name, kind in zip(dataset.names, dataset.kinds) if not kind.shape]
        domain = Domain.of(training, model["cutoff"], [*labels, *(["forces"] if dataset.has_forces else [])])
        return Predictor(config["model"]["name"], model, head, training.elements, config["precision"], energy, domain)
    except UserError as error:
        if error.key not in config["model"]:
            raise
        raise UserError(f"model.{error}", f"model.{error.key}") from None
