"""Errors of trained runs."""

from __future__ import annotations

from collections.abc import Sequence

import click

from dimenet_tf.commands.console import SETTINGS, ModelCommand
from dimenet_tf.errors import UserError

PARTS = ("train", "valid", "test")
FMAX, MAX_STEPS = 0.05, 200  # eV/Angstrom and steps of OC20's relaxations


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


def relax_run(run: str, folder: str, fmax: float, max_steps: int, structures: int | None = None) -> None:
    """Relax the initial structures of OC20's IS2RE with a run's best model, and print the table of errors.

    JSON goes into the folder of the run.

    Parameters
    ----------
    run : folder of a run that was trained with forces
    folder : of IS2RE, with validation splits
    fmax, max_steps, structures : see `dimenet_tf.training.oc20_relaxation.evaluate_relaxations`
    """
    from dimenet_tf.predictor import load
    from dimenet_tf.runs.folder import RunFolder
    from dimenet_tf.training.oc20_relaxation import relaxation_report

    print(relaxation_report(load(run), folder, RunFolder(run), fmax, max_steps, structures))


def combine_runs(runs: Sequence[str], output: str) -> None:
    """Print the papers' table of single-target runs; write it into a folder."""
    from dimenet_tf.training.table1 import combine, write_table

    print(write_table(combine(runs), output))


@click.command(cls=ModelCommand, context_settings=SETTINGS)
@click.argument("runs", nargs=-1, required=True, metavar="RUN...", type=click.Path())
@click.option("--part", type=click.Choice(PARTS), default="test", show_default=True, help="Part of the split.")
@click.option("--output", default="table1", show_default=True, metavar="FOLDER", help="Of the table of several runs.")
@click.option("--relax", metavar="FOLDER", help="Folder of OC20's IS2RE.")
@click.option("--fmax", default=FMAX, show_default=True, help="Largest force of a relaxed structure, eV/Ang.")
@click.option("--max-steps", default=MAX_STEPS, show_default=True, help="Longest relaxation.")
@click.option("--structures", type=int, help="Number relaxed of each split.")
def evaluate(
    runs: tuple[str, ...],
    part: str,
    output: str,
    relax: str | None,
    fmax: float,
    max_steps: int,
    structures: int | None,
) -> None:
    """Print the errors of a run's best model.

    JSON and parity plots go into the run's folder. Several RUNs, each with one target of QM9, are combined into the
    papers' Table 1. With --relax, a force field relaxes OC20's initial structures (docs/data.md).

    \b
    Example:
      dimenet-tf evaluate runs/3
      dimenet-tf evaluate runs/3 --part valid
      dimenet-tf evaluate runs/3 runs/4 runs/5 --output table1
      dimenet-tf evaluate runs/6 --relax oc20/is2re
    """
    if relax is not None:
        if len(runs) > 1 or part != "test":
            raise UserError("--relax takes one run, and no --part")
        relax_run(runs[0], relax, fmax, max_steps, structures)
    elif len(runs) == 1:
        evaluate_run(runs[0], part)
    elif part != "test":
        raise UserError(f"several runs are combined on their test molecules: leave out --part {part}")
    else:
        combine_runs(runs, output)
