"""The recipes that come with the library: configurations by name."""

from __future__ import annotations

import difflib
from pathlib import Path

import click
import yaml

from dimenet_tf.commands.console import SETTINGS
from dimenet_tf.errors import UserError

SUFFIXES = (".yaml", ".yml")


def recipe_files() -> dict[str, Path]:
    """Return the recipes' files by name.

    Examples
    --------
    >>> recipe_files()["paper/qm9_dimenet_pp"].name
    'qm9_dimenet_pp.yaml'
    """
    package = Path(__file__).parents[1]
    # installed inside the package, next to it in a source tree
    roots = [root for root in (package / "configs", package.parent / "configs") if root.is_dir()]
    return {
        path.relative_to(root).with_suffix("").as_posix(): path
        for root in roots
        for pattern in ("*.yaml", "*/*.yaml")
        for path in sorted(root.glob(pattern))
    }


def describe_recipes() -> str:
    """Return a line for each recipe: its name and its first comment."""
    files = recipe_files()
    width = max(map(len, files), default=0)
    comments = {name: path.read_text().splitlines()[0].lstrip("# ") for name, path in files.items()}
    return "\n".join(f"  {name:{width}}  {comment.rstrip(':')}" for name, comment in comments.items())


def find_recipe(given: str) -> Path:
    """Return the file of a recipe, given by its name or by a path.

    Raises
    ------
    UserError
        For what is neither, with the closest recipe, and for files that are not YAML.
    """
    files, path = recipe_files(), Path(given)
    if given in files:
        return files[given]
    if path.is_file():
        read_recipe(path)
        return path
    name = given.removeprefix("configs/")
    name = name.rpartition(".")[0] if path.suffix in SUFFIXES else name
    close = difflib.get_close_matches(name.lower(), files, n=1, cutoff=0.5)
    own = ", ".join(name for name in files if "/" not in name)
    hint = f"did you mean '{close[0]}'?" if close else f"recipes: {own}, and more in `dimenet-tf recipes`"
    raise UserError(f"there is no recipe and no file '{given}'; {hint}")


def read_recipe(path: Path) -> dict:
    """Read a YAML file of a configuration."""
    if path.suffix not in SUFFIXES:  # Sacred would unpickle .pickle and .json, which can run any code
        raise UserError(f"{path} is no configuration: these are YAML files (.yaml)")
    try:
        content = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} must have the sections model, data and training; it holds {content!r:.40}")
    return content


@click.command(context_settings=SETTINGS)
def recipes() -> None:
    """List the recipes of `train`.

    \b
    Example:
      dimenet-tf recipes
    """
    click.echo(describe_recipes())
