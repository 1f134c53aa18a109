"""Make the objects that a resolved configuration describes."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from dimenet_tf.config.settings import TrainingConfig
from dimenet_tf.data.dataset import DataConfig, Dataset
from dimenet_tf.errors import UserError
from dimenet_tf.graph import GraphStore
from dimenet_tf.models import MODELS
from dimenet_tf.predictor import Predictor
from dimenet_tf.predictor.domain import Domain
from dimenet_tf.properties.heads import Head, choose_head
from dimenet_tf.structures.container import DataContainer


def data_config(config: Mapping) -> DataConfig:
    """Convert the `data` section to its dataclass."""
    return DataConfig(**config["data"])


def training_config(config: Mapping) -> TrainingConfig:
    """Convert the `training` section to its dataclass."""
    return TrainingConfig(**config["training"])


def mean_neighbors(cutoff: float, container: DataContainer) -> float:
    """Estimate the mean number of neighbors of an atom from at most 100 molecules of a data set."""
    some = container.select(np.linspace(0, len(container) - 1, min(len(container), 100)).astype(int))
    cell, pbc = (None, None) if some.cells is None else some.cells
    store = GraphStore(some.N, some.Z, some.R, cutoff, (), "float32", cell, pbc)
    return float(store.sizes("edges").sum() / some.N.sum())


def gives_vectors(model: Mapping) -> bool:
    """Return whether the model of a section of a configuration can return vectors."""
    return MODELS[model["name"]].gives_vectors(model)


def build_head(model: Mapping, dataset: Dataset) -> Head:
    """Make the head of a model, with references and scales fitted to a data set.

    Parameters
    ----------
    model : section of a resolved configuration
    dataset : properties and training molecules

    Raises
    ------
    UserError
        For heads that do not fit the model, and references that no head adds.
    """
    vectors, extensive = gives_vectors(model), model.get("extensive", True)
    heads = {name: choose_head(each, extensive, vectors) for name, each in dataset.properties.items()}
    references = dataset.config.references
    if references not in ("auto", "none") and not any(head.additive for head in heads.values()):
        raise UserError(f"data.references = {references}: nothing is added to {', '.join(heads)}")
    for name, head in heads.items():
        if head.needs_vector and not vectors:
            able = ", ".join(other for other in MODELS if gives_vectors({"name": other}))
            raise UserError(f"'{name}' requires a model with vector outputs ({able}); '{model['name']}' has none")
        if head.singular_at_zero and model.get("output_init") == "zeros":
            raise UserError(f"model.output_init: zeros: a length of zero has no slope, {name} would never be learned")
    return Head([head.of(dataset.fitted(name, head.additive), vectors) for name, head in heads.items()])


def domain_labels(dataset: Dataset) -> list[str]:
    """Return the labels whose range a model's domain records: numbers and forces."""
    numbers = [name for name, each in dataset.properties.items() if not each.shape]
    return [*numbers, *["forces"] * dataset.has_forces]


def build_predictor(config: Mapping, dataset: Dataset) -> Predictor:
    """Make the untrained predictor that a resolved configuration describes."""
    model = {k: v for k, v in config["model"].items() if k != "name"}
    head = build_head(config["model"], dataset)
    training = dataset.container.select(dataset.split.train)
    model |= {"num_targets": len(head.scalars), "seed": config["seed"]}
    if gives_vectors(config["model"]):
        model["num_vectors"] = len(head.with_vector)
    model |= MODELS[config["model"]["name"]].suited_to(model, lambda: mean_neighbors(model["cutoff"], training))
    try:
        domain = Domain.of(training, model["cutoff"], domain_labels(dataset))
        return Predictor(
            config["model"]["name"], model, head, training.elements, config["precision"], dataset.energy, domain
        )
    except UserError as error:
        if error.key not in config["model"]:
            raise
        raise UserError(f"model.{error}", f"model.{error.key}") from None
