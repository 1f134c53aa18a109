"""Errors of trained runs."""

from __future__ import annotations

from collections.abc import Sequence

import click

from dimenet_tf.commands.console import SETTINGS, ModelCommand
from dimenet_tf.errors import UserError

PARTS = ("train", "valid", "test")


def evaluate_run(run: str, part: str = "test") -> None:
    """Print the table of errors of a run; write JSON, parity plots and residual histograms into its folder."""
    from dimenet_tf.predictor import load
    from dimenet_tf.runs.folder import RunFolder
    from dimenet_tf.training.report import report
    from dimenet_tf.training.session import open_dataset

    folder = RunFolder(run)
    config = folder.read_config()
    print(report(load(folder.path), open_dataset(config, folder), folder, part))
    print(f"{part}.json and plots: {folder.path}")


def combine_runs(runs: Sequence[str], output: str) -> None:
    """Print the papers' table of single-target runs; write it into a folder."""
    from dimenet_tf.training.table1 import combine, write_table

    print(write_table(combine(runs), output))


@click.command(cls=ModelCommand, context_settings=SETTINGS)
@click.argument("runs", nargs=-1, required=True, metavar="RUN...", type=click.Path())
@click.option("--part", type=click.Choice(PARTS), default="test", show_default=True, help="Part of the split.")
@click.option("--output", default="table1", show_default=True, metavar="FOLDER", help="Of the table of several runs.")
def evaluate(runs: tuple[str, ...], part: str, output: str) -> None:
    """Print the errors of a run's best model.

    JSON and parity plots go into the run's folder. Several RUNs, each with one target of QM9, are combined into the
    papers' Table 1.

    \b
    Example:
      dimenet-tf evaluate runs/3
      dimenet-tf evaluate runs/3 --part valid
      dimenet-tf evaluate runs/3 runs/4 runs/5 --output table1
    """
    if len(runs) == 1:
        evaluate_run(runs[0], part)
    elif part != "test":
        raise UserError(f"several runs are combined on their test molecules: leave out --part {part}")
    else:
        combine_runs(runs, output)
