"""Trained models: which there are, what one predicts, and its export."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from dimenet_tf.commands.console import DOMAIN, SETTINGS, ModelCommand, model_argument
from dimenet_tf.runs.catalog import pretrained_models

if TYPE_CHECKING:
    from dimenet_tf.predictor import Predictor


@click.command(context_settings=SETTINGS)
def models() -> None:
    """List the pretrained models.

    Each line has the name, which MODEL arguments take, and what the model predicts.

    \b
    Example:
      dimenet-tf models
    """
    lines = pretrained_models()
    width = max(map(len, lines), default=0)
    for name, line in lines.items():
        click.echo(f"{name:{width}}  {line}")


@click.command(cls=ModelCommand, context_settings=SETTINGS)
@model_argument
def info(model: str) -> None:
    """Print what a model predicts, as JSON.

    Units, elements, the domain of its training data, hyperparameters.

    \b
    Example:
      dimenet-tf info dimenet_pp-sample-U0
    """
    from dimenet_tf.predictor import load

    click.echo(json.dumps(describe(load(model)), indent=1))


def describe(predictor: Predictor) -> dict:
    """Describe a model for `info`."""
    from dimenet_tf.predictor.domain import NOT_RECORDED
    from dimenet_tf.structures.elements import symbols

    return {
        "model": predictor.model_name,
        "parameters": predictor.model.count_params(),
        "predicts": predictor.units,
        "heads": {part.target: part.name for part in predictor.head.parts},
        "elements": symbols(predictor.elements),
        "domain": NOT_RECORDED if predictor.domain is None else predictor.domain.describe(),
        "precision": predictor.precision,
        "hyperparameters": {k: v for k, v in predictor.model.get_config().items() if k not in ("name", "dtype")},
    }


@click.command(cls=ModelCommand, context_settings=SETTINGS)
@model_argument
@click.argument("folder", type=click.Path())
@click.option("--max-atoms", default=1000, show_default=True, help="Of a molecule; larger ones are refused.")
@click.option("--domain", type=DOMAIN, default="flag", help="Molecules outside of the domain.")
def export(model: str, folder: str, max_atoms: int, domain: str) -> None:
    """Write a SavedModel for TensorFlow Serving.

    FOLDER is a numbered one. The exported model takes atomic numbers and positions and returns properties and forces,
    without Python (docs/serving.md).

    \b
    Example:
      dimenet-tf export runs/2 served/1
    """
    from dimenet_tf.predictor import load

    predictor = load(model)
    predictor.export(folder, max_atoms, domain)
    print(f"{folder}: signatures serving_default, flat, edges; predicts {', '.join(predictor.units)}")
