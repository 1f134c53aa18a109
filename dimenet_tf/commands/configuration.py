"""Recipes, `key=value` and runs -> one configuration: what `dimenet-tf train` and `run_train.py` train by."""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from dimenet_tf.commands.recipes import describe_recipes, find_recipe, read_recipe
from dimenet_tf.config.settings import LENGTHS
from dimenet_tf.errors import UserError

LENGTH_KEYS = tuple(f"training.{key}" for key in LENGTHS)


def parse_value(text: str) -> Any:
    """Read the value of `key=value`: a Python literal, `true`, `false`, `null`, a YAML list or mapping, or a string.

    Examples
    --------
    >>> [parse_value(text) for text in ("2e-6", "None", "U0,U", "[energy, forces]", "{edges: 10000}", "false")]
    [2e-06, None, 'U0,U', ['energy', 'forces'], {'edges': 10000}, False]
    """
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        if text[:1] not in ("[", "{") and text not in ("true", "false", "null"):
            return text
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        raise UserError(f"'{text}' is no list or mapping; write [a, b] or {{name: value}}") from None


def normalize(arguments: Sequence[str]) -> list[str]:
    """Prepare what sets a configuration: recipes become paths, values Python literals, and one length replaces others.

    A length of training on the command line unsets those of files and of the run. Sacred reads the result as the
    command does.

    Raises
    ------
    UserError
        For recipes that do not exist and files that cannot be read.

    Examples
    --------
    >>> normalize(["training.epochs=20", "training.budget={edges: 10000}"])
    ['training.num_steps=None', 'training.hours=None', 'training.epochs=20', "training.budget={'edges': 10000}"]
    """
    options = dict(argument.partition("=")[::2] for argument in arguments)
    lengths = []
    if any(options.get(key, "None") != "None" for key in LENGTH_KEYS):
        lengths = [f"{key}=None" for key in LENGTH_KEYS if key not in options]
    return lengths + [_literal(text) if "=" in text else str(find_recipe(text)) for text in arguments]


def _literal(text: str) -> str:
    key, _, value = text.partition("=")
    parsed = parse_value(value.strip())
    return text if isinstance(parsed, str) else f"{key}={parsed!r}"


def given(arguments: Sequence[str]) -> dict[str, Any]:
    """Return the configuration that recipes and `key=value` make together, without defaults.

    Examples
    --------
    >>> given(["data.target=mu", "training.epochs=2"])
    {'training': {'num_steps': None, 'hours': None, 'epochs': 2}, 'data': {'target': 'mu'}}
    """
    config: dict = {}
    updates: dict = {}
    for text in normalize(arguments):
        key, is_update, value = text.partition("=")
        if not is_update:
            config = merge(config, read_recipe(Path(text)))
            continue
        section = updates
        *sections, last = key.strip().split(".")
        for name in sections:
            section = section.setdefault(name, {})
            if not isinstance(section, dict):
                raise UserError(f"{text}: {name} has been given a value and is no section")
        section[last] = parse_value(value.strip())
    return merge(config, updates)


def merge(old: Mapping, new: Mapping) -> dict:
    """Return `old` with the values of `new` in the place of its own, section by section.

    Examples
    --------
    >>> merge({"model": {"name": "painn", "cutoff": 5.0}}, {"model": {"cutoff": 4.0}})
    {'model': {'name': 'painn', 'cutoff': 4.0}}
    """
    merged = dict(old)
    for key, value in new.items():
        both = isinstance(value, Mapping) and isinstance(old.get(key), Mapping)
        merged[key] = merge(old[key], value) if both else value
    return merged


def complete(given: Mapping[str, Any]) -> dict[str, Any]:
    """Fill a configuration up with those of its run, if it has begun, and with defaults; check it.

    Raises
    ------
    UserError
        For unknown keys, wrong values and runs that do not exist.
    """
    from dimenet_tf.config.schema import resolve
    from dimenet_tf.config.settings import with_one_length
    from dimenet_tf.runs.folder import RunFolder

    run = given.get("run")
    if isinstance(run, str):
        if Path(run, "config.yaml").exists():
            old = RunFolder(run).read_config()
            if isinstance(given.get("training"), Mapping):
                old["training"] = with_one_length(old["training"], given["training"])
            given = merge(old, given)
        elif not {"model", "data", "training"} & set(given):
            raise UserError(f"no such run: {run}; a new run of that name needs a configuration")
    return resolve(given)


def check_asked(arguments: Sequence[str], example: str) -> None:
    """Raise a UserError that lists the recipes if neither a recipe, a run nor a length of training is given.

    Defaults alone are 3 000 000 steps of DimeNet, which nobody wants by accident.
    """
    config = given(arguments)
    training = config.get("training")
    has_length = isinstance(training, Mapping) and any(training.get(key) is not None for key in LENGTHS)
    if all("=" in text for text in arguments) and not has_length and config.get("run") is None:
        raise UserError(f"name a recipe or your own file, for instance: {example}\n{describe_recipes()}")
