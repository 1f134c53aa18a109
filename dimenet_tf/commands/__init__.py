"""The command `dimenet-tf`. Nothing heavy is imported before a command runs, so that help and completion are fast."""

from __future__ import annotations

from collections.abc import Sequence

import click

import dimenet_tf
from dimenet_tf.commands.console import SETTINGS, Commands
from dimenet_tf.commands.data import data, new
from dimenet_tf.commands.dynamics import certify, ipi, ipi_spectra, spectra
from dimenet_tf.commands.evaluate import evaluate
from dimenet_tf.commands.models import export, info, models
from dimenet_tf.commands.plot import plot
from dimenet_tf.commands.predict import predict
from dimenet_tf.commands.recipes import recipes
from dimenet_tf.commands.report import report
from dimenet_tf.commands.train import train


@click.group(cls=Commands, context_settings=SETTINGS)
@click.version_option(dimenet_tf.__version__, package_name="dimenet-tf")
def program() -> None:
    """\b
    Message-passing networks for molecules. Example: dimenet-tf train dimenet
    """


for command in (
    train,
    evaluate,
    report,
    predict,
    export,
    info,
    models,
    recipes,
    data,
    new,
    certify,
    spectra,
    ipi,
    ipi_spectra,
    plot,
):
    program.add_command(command)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run `dimenet-tf` with the arguments of the command line, or with those given."""
    program.main(arguments, prog_name="dimenet-tf")
