"""Predict the molecules of files."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from dimenet_tf.commands.console import DOMAIN, SETTINGS, ModelCommand, model_argument
from dimenet_tf.errors import UserError
from dimenet_tf.structures.units import LENGTH


@click.command(cls=ModelCommand, context_settings=SETTINGS)
@model_argument
@click.argument("input", type=click.Path(path_type=Path))
@click.argument("output", type=click.Path(path_type=Path))
@click.option("--batch-size", default=32, show_default=True, help="Molecules computed at once.")
@click.option("--processes", default=1, show_default=True, help="Processes at the same time.")
@click.option("--piece", default=1000, show_default=True, help="Molecules of a piece that is kept.")
@click.option("--shard", default="1/1", metavar="K/N", help="Compute the K-th of N shares of the file.")
@click.option("--on-bad", type=click.Choice(["error", "skip"]), default="error", help="Stop, or leave numbers out.")
@click.option("--domain", type=DOMAIN, default="flag", help="Molecules outside of the domain.")
@click.option("--length-unit", type=click.Choice(list(LENGTH)), help="Of the positions, if it is not Angstrom.")
@click.option("--worker", is_flag=True, hidden=True)  # started by --processes
def predict(
    model: str,
    input: Path,
    output: Path,
    batch_size: int,
    piece: int,
    processes: int,
    shard: str,
    on_bad: str,
    worker: bool,
    domain: str,
    length_unit: str | None,
) -> None:
    """Predict the molecules of a file.

    INPUT is XYZ, extended XYZ, npz or what else ASE reads, OUTPUT extended XYZ or npz. Memory does not grow with the
    file. Stopped at any moment, the same command continues from the pieces in .OUTPUT.parts.

    \b
    Example:
      dimenet-tf predict runs/1 in.extxyz out.extxyz --processes 4
    """
    try:
        k, n = (int(number) for number in shard.split("/"))
    except ValueError:
        raise UserError(f"--shard {shard} must be k/n: 1/4, 2/4, 3/4, 4/4 on four machines") from None
    from dimenet_tf.bulk import predict_file

    try:
        summary = predict_file(
            model, input, output, batch_size, piece, processes, (k, n), on_bad, worker, domain, length_unit
        )
    except KeyboardInterrupt:
        print("stopped: the same command continues from here", file=sys.stderr)
        sys.exit(130)
    if summary:
        print(summary)
