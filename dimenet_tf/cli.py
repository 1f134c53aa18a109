"""What the command line tools share: mistakes of the user become one line and an exit code."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import yaml

from dimenet_tf.errors import UserError, unknown_name
from dimenet_tf.training.settings import LENGTHS


def quiet_tensorflow() -> None:
    """Keep TensorFlow's notices off the screen; call before it is imported. TF_CPP_MIN_LOG_LEVEL=0 shows them all."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


@contextlib.contextmanager
def one_line_errors() -> Iterator[None]:
    """Print a `UserError` as one line and exit with code 2. Also a decorator."""
    try:
        yield
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


def _check_yaml(path: Path) -> None:
    if path.suffix not in (".yaml", ".yml"):  # Sacred would unpickle .pickle and .json, which can run any code
        raise UserError(f"{path} is no configuration: these are YAML files (.yaml)")
    try:
        yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise UserError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None


def replace_length(arguments: list[str]) -> list[str]:
    """Unset the other lengths of training where the command line sets one: it replaces that of a file or of a run.

    Examples
    --------
    >>> replace_length(["run_train.py", "with", "own.yaml", "training.epochs=20"])
    ['run_train.py', 'with', 'training.num_steps=None', 'training.hours=None', 'own.yaml', 'training.epochs=20']
    """
    first = arguments.index("with") + 1 if "with" in arguments else len(arguments)
    options = dict(argument.partition("=")[::2] for argument in arguments[first:])
    keys = [f"training.{key}" for key in LENGTHS]
    if all(options.get(key, "None") == "None" for key in keys):
        return arguments
    return [*arguments[:first], *(f"{key}=None" for key in keys if key not in options), *arguments[first:]]


def check_config_files(arguments: list[str]) -> None:
    """Raise a UserError if a configuration file behind `with` is missing or broken (Sacred would print a traceback)."""
    updates = arguments[arguments.index("with") + 1 :] if "with" in arguments else []
    for argument in updates:
        path = Path(argument)
        if "=" in argument or argument.startswith("-"):
            continue
        if path.is_file():
            _check_yaml(path)
            continue
        folder = path.parent if path.parent.is_dir() else Path("configs")
        raise unknown_name("configuration file", argument, sorted(str(p) for p in folder.glob("*.yaml")))
