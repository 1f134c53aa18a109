"""Command lines of the Sacred scripts. Sacred itself is imported by the scripts alone."""

from __future__ import annotations

import importlib
import itertools
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dimenet_tf.commands.configuration import normalize
from dimenet_tf.errors import UserError

# modules that Sacred's options need, and what to install for them
OPTIONAL = {
    "--mongo_db": (("pymongo",), "pymongo"),
    "--tiny_db": (("tinydb", "tinydb_serialization", "hashfs"), "tinydb tinydb-serialization hashfs"),
    "--sql": (("sqlalchemy",), "sqlalchemy"),
    "--s3": (("boto3",), "boto3"),
    "--gcs": (("google.cloud.storage",), "google-cloud-storage"),
}


def updates_of(arguments: Sequence[str]) -> list[str]:
    """Return the arguments between `with` and the next option on the command line of a script.

    Examples
    --------
    >>> updates_of(["run_train.py", "with", "painn", "training.epochs=2", "--force"])
    ['painn', 'training.epochs=2']
    """
    after = arguments[arguments.index("with") + 1 :] if "with" in arguments else []
    return list(itertools.takewhile(lambda text: not text.startswith("-"), after))


def run_script(experiment: Any, arguments: Sequence[str]) -> None:
    """Run the command line of a Sacred experiment.

    Recipes are found by name as in `dimenet-tf train`. Help and usage name the script, which Sacred calls "dummy".

    Raises
    ------
    UserError
        For recipes that cannot be read and options whose package is not installed.
    """
    experiment.logger = logging.getLogger("sacred")
    experiment.logger.setLevel(logging.CRITICAL)  # what users must know is printed
    _check_packages(experiment, arguments)
    *_, usage = experiment.get_usage()
    usage = usage.replace("dummy", Path(arguments[0]).name)
    experiment.get_usage = lambda program_name=None: (usage.partition("\n\n")[0], usage, usage)
    updates = updates_of(arguments)
    first = arguments.index("with") + 1 if updates else len(arguments)
    experiment.run_commandline([*arguments[:first], *normalize(updates), *arguments[first + len(updates) :]])


def _check_packages(experiment: Any, arguments: Sequence[str]) -> None:
    for option in experiment.all_cli_options:
        short, long = option.get_flags()
        modules, packages = OPTIONAL.get(long, ((), ""))
        given = any(text.startswith(long if text[:2] == "--" else short) for text in arguments)
        for module in modules if given else ():
            try:
                importlib.import_module(module)
            except ImportError:
                raise UserError(
                    f"{short}, {long} needs a package that is not installed: pip install {packages}"
                ) from None
