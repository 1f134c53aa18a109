"""Pictures of runs and models."""

from __future__ import annotations

from pathlib import Path

import click

from dimenet_tf.commands.console import SETTINGS, ModelCommand, model_argument


@click.command(cls=ModelCommand, context_settings=SETTINGS)
@click.argument("kind", type=click.Choice(["basis", "filters", "architecture", "curves"]))
@model_argument
@click.option("--output", type=click.Path(path_type=Path), default="plots", show_default=True, metavar="FOLDER")
def plot(kind: str, model: str, output: Path) -> None:
    """Draw pictures of a model or a run.

    Its basis functions, learned filters, architecture, or the learning curve of a run (curves).

    \b
    Example:
      dimenet-tf plot filters dimenet_pp-sample-U0
      dimenet-tf plot curves runs/1 --output pictures
    """
    from dimenet_tf.plots.pictures import draw

    click.echo("\n".join(map(str, draw(kind, model, output))))
