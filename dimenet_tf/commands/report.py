"""A page about a run."""

from __future__ import annotations

from pathlib import Path

import click

from dimenet_tf.commands.console import SETTINGS, ModelCommand


@click.command(cls=ModelCommand, context_settings=SETTINGS)
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("output", required=False, metavar="[OUT.html]", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--limit", type=click.IntRange(1), metavar="NUMBER", help="Of test molecules to predict; all without it.")
def report(run: Path, output: Path | None, limit: int | None) -> None:
    """Write an HTML page about a training run.

    Test errors, learning curves, parity plots, errors by element and size, the largest errors with their molecules
    in 3D, domain, certificate and configuration. The page is one file and loads nothing from the network. Without
    OUT.html it is report.html in the run's folder.

    \b
    Example:
      dimenet-tf report runs/3
      dimenet-tf report runs/3 ethanol.html --limit 1000
    """
    from dimenet_tf.report.page import write_report

    path, notes = write_report(run, output, limit)
    for note in notes:
        click.echo(f"note: {note}")
    click.echo(f"written to {path}")
