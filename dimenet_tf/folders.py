"""Where trained models lie: folders of predictors and runs, exported models, and those that come with the library."""

from __future__ import annotations

import difflib
import json
from pathlib import Path

from dimenet_tf.errors import UserError

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
    package = Path(__file__).parent
    # installed inside the package, beside it in a source tree
    roots = [root for root in (package / "pretrained", package.parent / "pretrained") if root.is_dir()]
    return {path.parent.name: path.parent for root in roots for path in sorted(root.glob(f"*/{DESCRIPTION}"))}


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
