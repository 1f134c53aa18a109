"""Where trained models lie: folders of predictors and runs, exported models, and those that come with the library."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from dimenet_tf.errors import UserError
from dimenet_tf.structures.elements import symbols

DESCRIPTION, WEIGHTS = "predictor.json", "weights.h5"


def read_description(path: Path, newest: int) -> dict:
    """Read the JSON file in which a folder says what it holds; `newest` is the latest format that is understood."""
    try:
        description = json.loads(path.read_text())
    except (OSError, json.JSONDecodeError) as error:
        raise UserError(f"{path} cannot be read ({error})") from None
    if description["format"] > newest:
        raise UserError(f"{path} was written by a newer version of dimenet_tf")
    return description


def pretrained_folders() -> dict[str, Path]:
    """Return the models that come with the library, by name."""
    package = Path(__file__).parents[1]
    # installed inside the package, beside it in a source tree
    roots = [root for root in (package / "pretrained", package.parent / "pretrained") if root.is_dir()]
    return {path.parent.name: path.parent for root in roots for path in sorted(root.glob(f"*/{DESCRIPTION}"))}


def pretrained_models() -> dict[str, str]:
    """Return what each model predicts that comes with the library, one line by name; `dimenet_tf.load` takes the names.

    Examples
    --------
    >>> import dimenet_tf
    >>> dimenet_tf.pretrained_models()["dimenet_pp-ethanol_xtb-forces"]
    'dimenet_pp: energy in eV, forces in eV/Ang; H, C, O'
    """
    lines = {}
    for name, folder in pretrained_folders().items():
        description = json.loads((folder / DESCRIPTION).read_text())
        head = description["head"]
        if isinstance(head, Mapping):  # of format 1
            units = dict(zip(head["targets"], head["units"]))
        else:
            units = {part["target"]: part["unit"] for part in head}
        if description.get("energy") is not None:
            units["forces"] = "eV/Ang"
        lines[name] = describe_predictor(description["model"]["name"], units, description["elements"])
    return lines


def describe_predictor(model_name: str, units: Mapping[str, str], elements: Sequence[int]) -> str:
    """Return one line about a predictor.

    Parameters
    ----------
    model_name : a key of `MODELS`
    units : unit of each property by name; empty where it is not known
    elements : atomic numbers

    Examples
    --------
    >>> describe_predictor("painn", {"energy": "eV", "index": ""}, [1, 6])
    'painn: energy in eV, index; H, C'
    """
    properties = [f"{name} in {unit}" if unit else name for name, unit in units.items()]
    return f"{model_name}: {', '.join(properties)}; {symbols(elements)}"


def places(folder: Path) -> tuple[Path, ...]:
    """Where a predictor may be: a folder of its own, a run, a SavedModel."""
    return folder, folder / "best", folder / "assets"


def find_predictor(path: str | Path) -> Path:
    """Return the folder of the predictor itself: inside a run's or an exported model's."""
    return next(folder for folder in places(find_folder(path)) if (folder / DESCRIPTION).exists())


def find_folder(path: str | Path) -> Path:
    """Return the folder of a run or model, which may be the name of a pretrained one."""
    path = Path(path)
    if any((folder / DESCRIPTION).exists() for folder in places(path)):
        return path
    if path.exists():
        raise UserError(f"{path} holds no trained model (no {DESCRIPTION} in it, in best or in assets)")
    known = pretrained_folders()
    if str(path) in known:
        return known[str(path)]
    close = difflib.get_close_matches(str(path), known, n=1)
    hint = f"; did you mean '{close[0]}'?" if close else ""
    raise UserError(f"no such run or model: {path}{hint}")
