"""A force field's certificate: what it takes to trust its dynamics, measured on the model itself.

`dimenet-tf certify MODEL` makes one.
"""

from __future__ import annotations

if __name__ == "__main__":
    raise SystemExit("error: python -m dimenet_tf.md.certify is no longer a command; use: dimenet-tf certify")

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from ase import Atoms

from dimenet_tf.errors import UserError
from dimenet_tf.md.measurements import (
    cutoff,
    exported,
    finite_differences,
    held_out,
    lattice,
    npt,
    nve,
    symmetries,
    work,
)
from dimenet_tf.predictor import Predictor, load
from dimenet_tf.predictor.weights import named_variables
from dimenet_tf.runs.catalog import find_folder
from dimenet_tf.runs.folder import RunFolder
from dimenet_tf.structures.container import DataContainer
from dimenet_tf.structures.readers import read_file
from dimenet_tf.training.session import open_dataset
from dimenet_tf.version import __version__

CERTIFICATE = "certificate.json"
FULL_LENGTH = 10.0  # ps of dynamics


def fingerprint(predictor: Predictor) -> str:
    """Return a SHA-256 of the weights, which ties a certificate to them."""
    digest = hashlib.sha256()
    for name, variable in named_variables(predictor.model).items():
        digest.update(name.encode() + variable.numpy().tobytes())
    return digest.hexdigest()


def frame(data: DataContainer, i: int) -> Atoms:
    """Return one molecule or crystal of a container, without its labels."""
    atoms = data[i]
    return Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)


def certify(
    predictor: Predictor,
    data: DataContainer,
    picoseconds: float = 10.0,
    temperature: float = 300.0,
    timestep: float = 0.5,
    say: Callable[[str], None] = lambda text: None,
) -> dict[str, dict]:
    """Measure everything.

    Parameters
    ----------
    predictor : with forces
    data : held-out frames with `energy` and `forces`
    picoseconds, temperature, timestep : of the dynamics at constant energy and, of crystals, at constant pressure; K,
        fs
    say : called with what is being measured

    Returns
    -------
    dict from each measurement to its `value`, `unit` and `bound` (None where there is nothing to pass)
    """
    if predictor.energy is None:
        raise UserError("this model has no forces to certify")
    if len(data) == 0:
        raise UserError("there are no held-out frames")
    if not (picoseconds > 0 and timestep > 0 and temperature > 0):
        raise UserError("picoseconds, timestep and temperature must be greater than 0")
    if data.N.min() < 2:
        raise UserError("a certificate needs structures of at least two atoms")
    frames = [frame(data, i) for i in np.linspace(0, len(data) - 1, 3).astype(int)]
    double = predictor if predictor.dtype == "float64" else predictor.clone("float64")
    result = {}
    say("forces against finite differences")
    result["forces against finite differences, float64"] = finite_differences(double, frames)
    say("work of the forces along paths")
    result["energy against work of the forces, float64"] = work(double, frames)
    say("symmetries")
    for each in dict.fromkeys([predictor, double]):
        result |= symmetries(each, frames)
    if frames[0].pbc.any():
        say("lattice")
        result |= lattice(double, frames)
    else:
        say("cutoff")
        result |= cutoff(double, frames[0])
    say("export")
    result |= exported(predictor, frames)
    say("held-out frames")
    result |= held_out(predictor, data)
    say(f"{picoseconds:g} ps at constant energy")
    result |= nve(predictor, frames[0], picoseconds, temperature, timestep)
    if frames[0].pbc.all() and predictor.has_stress:
        say(f"{picoseconds:g} ps at constant pressure")
        result |= npt(predictor, frames[0], picoseconds, temperature, timestep)
    for name, row in result.items():
        # the slope of a short piece of a vibrating energy has no meaning
        too_short = picoseconds < FULL_LENGTH and name.startswith(("NVE drift", "NPT drift"))
        judged = row["bound"] is not None and not too_short
        exploded = not np.isfinite(row["value"])
        row["passed"] = bool(row["value"] <= row["bound"]) if judged or exploded else None
    return result


def format_certificate(result: dict[str, dict]) -> str:
    """Return the certificate as a table."""
    rows = [["", "measured", "bound", "", ""]]
    for name, row in result.items():
        verdict = {True: "passed", False: "FAILED", None: ""}[row["passed"]]
        bound = "" if row["bound"] is None else f"{row['bound']:.0e}" if row["bound"] < 1e-2 else f"{row['bound']:g}"
        rows.append([name, f"{row['value']:.3g}", bound, row["unit"], verdict])
    widths = [max(len(row[c]) for row in rows) for c in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            cell.rjust(w) if c in (1, 2) else cell.ljust(w) for c, (cell, w) in enumerate(zip(row, widths))
        ).rstrip()
        for row in rows
    )


def own_test_frames(folder: Path) -> DataContainer:
    """Return the test frames of the data that a model was trained on, from its configuration and split."""
    run = RunFolder(folder)
    if not (run.config_file.exists() and run.split_file.exists()):
        raise UserError(f"{folder} does not specify its held-out frames: name some with --frames FILE")
    dataset = open_dataset(run.read_config(), run)
    return dataset.container.select(dataset.split.test)


def certify_model(
    model: str | Path,
    frames: str | Path | None = None,
    keys: Mapping[str, str] | None = None,
    units: Mapping[str, str] | None = None,
    picoseconds: float = 10.0,
    temperature: float = 300.0,
    timestep: float = 0.5,
) -> None:
    """Certify a model, print the certificate and write it into the model's folder.

    Parameters
    ----------
    model : as `dimenet_tf.load`
    frames : file of held-out frames with energy and forces; the test frames of the model's run where left out
    keys, units : of the frames, as in `read_file`
    picoseconds, temperature, timestep : as in `certify`

    Raises
    ------
    UserError
        For models and frames that cannot be certified, and for a measurement beyond its bound.
    """
    predictor, folder = load(model), find_folder(model)
    data = read_file(frames, keys, units) if frames else own_test_frames(folder)
    result = certify(predictor, data, picoseconds, temperature, timestep, lambda text: print(text, "..."))
    print(format_certificate(result))
    certificate = {
        "weights": fingerprint(predictor),
        "frames": data.source,
        "dimenet_tf": __version__,
        "measured": result,
    }
    try:
        (folder / CERTIFICATE).write_text(json.dumps(certificate, indent=1))
        print(f"written to {folder / CERTIFICATE}")
    except OSError as error:
        raise UserError(f"the certificate could not be written: {error}") from None
    failed = [name for name, row in result.items() if row["passed"] is False]
    if failed:
        reason = f". {predictor.model.discontinuity}" if predictor.model.discontinuity else ""
        raise UserError(f"beyond its bound: {'; '.join(failed)}: do not trust this model's dynamics{reason}")
    if picoseconds < FULL_LENGTH:
        print(f"not a full certificate: it asks for {FULL_LENGTH:g} ps of dynamics")
