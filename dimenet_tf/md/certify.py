"""A force field's certificate: what it takes to trust its dynamics, measured on the model itself.

python -m dimenet_tf.md.certify MODEL                        # run folder or pretrained model; its own test frames
python -m dimenet_tf.md.certify MODEL --frames other.extxyz  # energies in eV, forces in eV/Ang
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Callable
from pathlib import Path

from dimenet_tf.cli import one_line_errors, quiet_tensorflow

quiet_tensorflow()

import numpy as np  # noqa: E402
from ase import Atoms  # noqa: E402

import dimenet_tf  # noqa: E402
from dimenet_tf.data.container import DataContainer  # noqa: E402
from dimenet_tf.data.readers import read_file  # noqa: E402
from dimenet_tf.errors import UserError  # noqa: E402
from dimenet_tf.folders import find_folder  # noqa: E402
from dimenet_tf.md.measurements import (  # noqa: E402
    cutoff,
    exported,
    finite_differences,
    held_out,
    nve,
    symmetries,
    work,
)
from dimenet_tf.predictor import Predictor, load  # noqa: E402
from dimenet_tf.training.folder import RunFolder  # noqa: E402
from dimenet_tf.training.session import open_dataset  # noqa: E402
from dimenet_tf.weights import named_variables  # noqa: E402

CERTIFICATE = "certificate.json"
FULL_LENGTH = 10.0  # ps of dynamics


def fingerprint(predictor: Predictor) -> str:
    """Return a SHA-256 of the weights, which ties a certificate to them."""
    digest = hashlib.sha256()
    for name, variable in named_variables(predictor.model).items():
        digest.update(name.encode() + variable.numpy().tobytes())
    return digest.hexdigest()


def frame(data: DataContainer, i: int) -> Atoms:
    """Return one molecule of a container."""
    one = data.select([i])
    return Atoms(one.Z, one.R)


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
    picoseconds, temperature, timestep : of the constant-energy dynamics; K, fs
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
        raise UserError("a certificate needs molecules of at least two atoms")
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
    say("cutoff")
    result |= cutoff(double, frames[0])
    say("export")
    result |= exported(predictor, frames)
    say("held-out frames")
    result |= held_out(predictor, data)
    say(f"{picoseconds:g} ps at constant energy")
    result |= nve(predictor, frames[0], picoseconds, temperature, timestep)
    for name, row in result.items():
        # the slope of a short piece of a vibrating energy says nothing
        judged = row["bound"] is not None and (picoseconds >= FULL_LENGTH or not name.startswith("NVE drift"))
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
        raise UserError(f"{folder} does not say which frames it has not seen: name some with --frames FILE")
    dataset = open_dataset(run.read_config(), run)
    return dataset.container.select(dataset.split.test)


@one_line_errors()
def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m dimenet_tf.md.certify",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", help="run folder, folder of a model, or name of a pretrained one")
    parser.add_argument("--frames", help="held-out frames with energy and forces, where they are not the run's own")
    parser.add_argument("--units", nargs="*", default=[], metavar="NAME=UNIT", help="of the frames: energy=kcal/mol")
    parser.add_argument(
        "--keys", nargs="*", default=[], metavar="NAME=KEY", help="the frames' names: energy=REF_energy"
    )
    parser.add_argument("--picoseconds", type=float, default=10.0)
    parser.add_argument("--temperature", type=float, default=300.0, help="K")
    parser.add_argument("--timestep", type=float, default=0.5, help="fs")
    args = parser.parse_args()
    predictor, folder = load(args.model), find_folder(args.model)
    keys, units_ = (_pairs(option, given) for option, given in (("--keys", args.keys), ("--units", args.units)))
    data = read_file(args.frames, keys, units_) if args.frames else own_test_frames(folder)
    result = certify(
        predictor, data, args.picoseconds, args.temperature, args.timestep, lambda text: print(text, "...")
    )
    print(format_certificate(result))
    certificate = {
        "weights": fingerprint(predictor),
        "frames": data.source,
        "dimenet_tf": dimenet_tf.__version__,
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
    if args.picoseconds < FULL_LENGTH:
        print(f"not a full certificate: it asks for {FULL_LENGTH:g} ps of dynamics")


def _pairs(option: str, given: list[str]) -> dict[str, str]:
    if not all("=" in pair for pair in given):
        raise UserError(f"{option} takes NAME=VALUE, as {option} energy=...")
    return dict(pair.split("=", 1) for pair in given)


if __name__ == "__main__":
    main()
