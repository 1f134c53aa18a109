"""Train a model, with Sacred's record or without."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dimenet_tf.commands.configuration import check_asked, complete, given
from dimenet_tf.commands.console import EXIT_CODES, SETTINGS, ModelCommand, completing, leaving_on_signals
from dimenet_tf.commands.recipes import recipe_files
from dimenet_tf.errors import UserError

if TYPE_CHECKING:
    from dimenet_tf.runs.folder import RunFolder


def open_folder(config: dict) -> RunFolder:
    """Return the folder of a complete configuration's run; a run without a name gets a new one."""
    from dimenet_tf.runs.folder import RunFolder

    if config["training"]["strategy"] == "multi_worker" and not config["run"]:
        raise UserError("training.strategy: multi_worker needs the name of the run that all share: run=runs/NAME")
    folder = RunFolder(config["run"]) if config["run"] else RunFolder.new(config["training"]["logdir"])
    config["run"] = str(folder.path)
    return folder


def train_run(config: dict, on_validation: Callable[[dict], None] | None = None) -> None:
    """Train until the last step and print the errors on the test molecules; exit with a signal's code if one ends it.

    Parameters
    ----------
    config : as `complete` returns it, with a run
    on_validation : called with each line of metrics.csv
    """
    from dimenet_tf.runs.folder import RunFolder
    from dimenet_tf.training.session import run_session

    stopped = run_session(config, RunFolder(config["run"]), on_validation)
    if stopped is not None:
        sys.exit(EXIT_CODES[stopped])


def fit_run(config: dict) -> None:
    """Fit the scaling factors of a new run to batches of its data, and print them; training continues from there."""
    from dimenet_tf.runs.folder import RunFolder
    from dimenet_tf.training.session import fit_session

    fit_session(config, RunFolder(config["run"]))


def _names() -> list[str]:
    runs = sorted(Path("runs").glob("*/config.yaml"))
    return [*recipe_files(), *(f"run={path.parent}" for path in runs)]


@click.command(cls=ModelCommand, context_settings=SETTINGS)
@click.argument("arguments", nargs=-1, metavar="[RECIPE] [KEY=VALUE]...", shell_complete=completing(_names))
@click.option("--print-config", is_flag=True, help="Print the whole configuration; train nothing.")
@click.option("--fit-scale-factors", "fit_only", is_flag=True, help="Fit GemNet's scaling factors; train nothing.")
def train(arguments: tuple[str, ...], print_config: bool, fit_only: bool) -> None:
    """Train a model by a recipe or your own YAML file.

    RECIPE is a name from `dimenet-tf recipes` or a path, KEY=VALUE sets any key. run=FOLDER names the run, or
    continues it. --print-config shows all keys; docs/configuration.md explains them.

    \b
    Example:
      dimenet-tf train dimenet                                  # 8 minutes
      dimenet-tf train paper/qm9_dimenet_pp data.target=mu
      dimenet-tf train forces data.path=my.extxyz training.hours=2 run=runs/mine
      dimenet-tf train run=runs/mine                            # continue
    """
    with leaving_on_signals():
        config = complete(given(arguments))
        if print_config:
            import yaml

            click.echo(yaml.safe_dump(config, sort_keys=False), nl=False)
            return
        check_asked(arguments, "dimenet-tf train dimenet data.target=mu")
        open_folder(config)
        if fit_only:
            fit_run(config)
        else:
            train_run(config)
