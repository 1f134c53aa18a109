"""Summary of a file of molecules, and a configuration for it."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click
import yaml

from dimenet_tf.commands.console import SETTINGS, ModelCommand, completing, key_option, pairs, unit_option
from dimenet_tf.commands.recipes import read_recipe, recipe_files
from dimenet_tf.config.settings import LENGTHS
from dimenet_tf.errors import UserError

if TYPE_CHECKING:
    from dimenet_tf.structures.container import DataContainer
    from dimenet_tf.structures.survey import Survey

FEWEST = 3  # molecules: one to train on, one to validate on, one to test on
HOURS = 1.0
# data sets that need no other key than their name
NAMED = ("sample", "ethanol_xtb", "water_xtb", "oc20_sample", "qm9", "coll")
COMMENTS = {
    "model.name": "docs/models.md compares them",
    "model.emb_size": "width: 64 is faster, 128 more accurate where there are many molecules",
    "model.extensive": "false: a property that does not grow with the molecule",
    "data.on_bad": "error: stop at molecules that cannot be used; drop: leave them out",
    "data.num_valid": "the rest is tested on",
    "training.hours": "on this machine; or num_steps, or epochs. Longer is better",
    "training.batch_size": "molecules in a step",
    "training.learning_rate": "lower it if the loss explodes",
}


class Plan(NamedTuple):
    """Proposed configuration for a file."""

    recipe: str
    target: list[str]
    keys: dict[str, str]
    extensive: bool


def _read(file: str, keys: Mapping[str, str], units: Mapping[str, str]) -> DataContainer:
    """Read a file without checks, or a data set by its name; what errors call `data.keys` are options here."""
    from dimenet_tf.data.dataset import DATASETS, DataConfig, load_container
    from dimenet_tf.structures.readers import read_file

    try:
        if file in DATASETS and not Path(file).exists():
            return load_container(DataConfig(name=file, target=[], keys=keys, units=units, on_bad="drop"))
        if not Path(file).exists():
            raise UserError(f"no such file: {file}; data sets by name: {', '.join(DATASETS)}")
        return read_file(file, keys, units, None)
    except UserError as error:
        raise UserError(_as_options(str(error))) from None


def _as_options(message: str) -> str:
    return message.replace("data.keys.", "--key ").replace("data.units.", "--unit ")


def _plan(found: Survey, keys: Mapping[str, str]) -> Plan:
    """Choose what to learn from a file, and the recipe for it."""
    from dimenet_tf.structures.quantities import PROPERTIES, find_property

    guessed = {name: names[0] for name, names in found.other_names.items()}
    if any(name in PROPERTIES and name != "forces" for name in found.names):
        guessed.pop("energy", None)  # what is there under a known name comes first
    keys = {**guessed, **keys}
    names = [*found.names, *(name for name in keys if name not in found.names and name != "weight")]
    names = [name for name in names if name not in keys.values()]
    if {"energy", "forces"} <= set(names):
        return Plan("forces", ["energy", "forces"], keys, True)
    keys.pop("forces", None)  # without energies nothing is learned from them
    order = [name for name in ("energy", "U0", *PROPERTIES, *names) if name in names and name != "forces"]
    if not order:
        raise UserError(f"{found.source} has no labels to train on")
    name, kind = order[0], find_property(order[0])
    recipe = "painn" if name == "mu" or kind.shape else "dimenet_pp"
    return Plan(recipe, [name], keys, kind.extensive)


def _propose(
    file: str, container: DataContainer, found: Survey, keys: Mapping[str, str], units: Mapping[str, str]
) -> tuple[Plan, Survey]:
    """Return the plan for a file and its survey, in which molecules are judged by what is to be learned."""
    from dimenet_tf.structures.survey import survey

    plan = _plan(found, keys)
    if plan.keys != keys:
        container = _read(file, plan.keys, units)
    return plan, survey(container, plan.keys, plan.target)


def _options(plan: Plan, units: Mapping[str, str], key: str, unit: str) -> list[str]:
    return [f"{key}{name}={theirs}" for name, theirs in plan.keys.items()] + [
        f"{unit}{n}={u}" for n, u in units.items()
    ]


def suggestion(file: str, found: Survey, plan: Plan, units: Mapping[str, str]) -> list[str]:
    """Return commands that train on a file or a data set."""
    drop = ["data.on_bad=drop"] if found.bad else []
    target = [f"data.target={','.join(plan.target)}"]
    if not Path(file).exists():
        return [shlex.join(["dimenet-tf", "train", plan.recipe, f"data.name={file}", *target, *drop])]
    own = _options(plan, units, "data.keys.", "data.units.")
    options = [part for text in _options(plan, units, "--key ", "--unit ") for part in text.split(" ", 1)]
    train = ["dimenet-tf", "train", plan.recipe, f"data.path={file}", *target, *own, *drop, f"training.hours={HOURS:g}"]
    return [shlex.join(["dimenet-tf", "new", file, *options]), shlex.join(train)]


def configuration_text(
    file: str, found: Survey, plan: Plan, units: Mapping[str, str], split: bool, output: Path
) -> str:
    """Return the text of a configuration for a file, with comments.

    Parameters
    ----------
    file : of molecules
    found : its survey
    plan : what to learn from it
    units : of what it holds
    split : bool, the file comes with a split
    output : name of the configuration
    """
    recipe = read_recipe(recipe_files()[plan.recipe])
    train, valid = (max(1, found.usable * percent // 100) for percent in (80, 10))
    rest = {key: value for key, value in recipe["training"].items() if key not in LENGTHS}
    batch = min(recipe["training"]["batch_size"], train)
    others = [name for name in found.names if name not in plan.target and name not in plan.keys.values()]
    sections = {
        "model": recipe["model"],
        "data": {
            "path": file,
            "target": plan.target if len(plan.target) > 1 else plan.target[0],
            **({"keys": plan.keys} if plan.keys else {}),
            **({"units": dict(units)} if units else {}),
            **({} if split else {"num_train": train, "num_valid": valid}),
            "on_bad": "drop" if found.bad else "error",
        },
        "training": {"hours": HOURS, **rest, "batch_size": batch},
    }
    if plan.recipe == "dimenet_pp":
        sections["model"]["extensive"] = plan.extensive
    comments = {
        **COMMENTS,
        "data.path": f"{found.sizes[0]} molecules",
        "data.target": f"there are also {', '.join(others)}" if others else "",
        "data.keys": "the file's names; check that they mean this",
        "data.num_train": f"of {found.usable} molecules",
    }
    if found.bad:
        comments["data.on_bad"] = f"leaves out {len(found.bad)} of {found.sizes[0]}; `dimenet-tf data {file}` tells why"
    lines = [
        f"# {' and '.join(plan.target)} of {file}; written by `dimenet-tf new`.",
        f"#   dimenet-tf train {output} run=runs/{output.stem}     # train, and continue if it was stopped",
        f"#   dimenet-tf train {output} --print-config     # all keys with their values",
        "# First options to change: training.hours, then data.target and model.emb_size.",
    ]
    for section, values in sections.items():
        lines.append(f"{section}:")
        for key, value in values.items():
            text = yaml.safe_dump(value, default_flow_style=True, width=1000, allow_unicode=True)
            comment = comments.get(f"{section}.{key}")
            value_text = text.removesuffix("...\n").strip()
            lines.append(f"  {key}: {value_text}{f'  # {comment}' if comment else ''}")
    return "\n".join([*lines, ""])


@click.command(cls=ModelCommand, context_settings=SETTINGS)
@click.argument("file", shell_complete=completing(lambda: NAMED))
@key_option
@unit_option
def data(file: str, keys: tuple[str, ...], units: tuple[str, ...]) -> None:
    """Show what is in a file of molecules.

    Counts, elements, labels and their units, distances, molecules that cannot be used, outliers; and how to train on
    it. FILE is npz, extended XYZ, an ASE database, ..., or the name of a data set: sample, ethanol_xtb, water_xtb,
    oc20_sample.

    \b
    Example:
      dimenet-tf data my.extxyz
      dimenet-tf data my.extxyz --key energy=REF_energy --unit energy=Hartree
    """
    from dimenet_tf.structures.survey import format_survey, survey

    names, their_units = pairs(keys, "--key"), pairs(units, "--unit")
    container = _read(file, names, their_units)
    found = survey(container, names)
    click.echo(_as_options(format_survey(found)))
    if found.problems:
        return
    try:
        plan, found = _propose(file, container, found, names, their_units)
        lines = suggestion(file, found, plan, their_units)
    except UserError as error:
        lines = [str(error)]
    click.echo("\n".join(["to train on it:", *(f"  {line}" for line in lines)]))


@click.command(cls=ModelCommand, context_settings=SETTINGS)
@click.argument("file", type=click.Path())
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="Of the configuration.  [default: FILE's name.yaml]"
)
@key_option
@unit_option
def new(file: str, output: Path | None, keys: tuple[str, ...], units: tuple[str, ...]) -> None:
    """Write a configuration for your own file.

    A YAML file with comments: targets, names and units, numbers of molecules, the length of training. Edit it, then
    train by it. An existing file is never replaced.

    \b
    Example:
      dimenet-tf new my.extxyz
      dimenet-tf train my.yaml run=runs/my
    """
    from dimenet_tf.structures.survey import survey

    names, their_units = pairs(keys, "--key"), pairs(units, "--unit")
    output = output or Path(Path(file).name.split(".")[0] + ".yaml")
    if output.exists():
        raise UserError(f"{output} exists already: name another by -o")
    if not Path(file).exists():
        raise UserError(f"no such file: {file}")
    container = _read(file, names, their_units)
    found = survey(container, names)
    if found.problems:
        raise UserError(_as_options(found.problems[0]))
    plan, found = _propose(file, container, found, names, their_units)
    if found.usable < FEWEST:
        raise UserError(
            f"{file}: {found.usable} of its molecules can be used, at least {FEWEST} are needed; see `dimenet-tf data`"
        )
    output.write_text(configuration_text(file, found, plan, their_units, container.split is not None, output))
    for name, theirs in plan.keys.items():
        if name not in names:
            click.echo(f"taken for {name}: '{theirs}'; if it is another, --key {name}=KEY")
    click.echo(
        f"{output}: {' and '.join(plan.target)}, as recipe {plan.recipe}; train by it: dimenet-tf train {output}"
    )
