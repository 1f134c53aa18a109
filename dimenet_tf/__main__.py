"""Predict, export and describe trained models.

python -m dimenet_tf predict MODEL in.extxyz out.extxyz
python -m dimenet_tf export MODEL served/1
python -m dimenet_tf info MODEL

MODEL is a run folder, the name or folder of a pretrained model, or an exported SavedModel.
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Iterator
from pathlib import Path

from dimenet_tf.cli import one_line_errors, quiet_tensorflow

quiet_tensorflow()

import ase.io.extxyz  # noqa: E402
import numpy as np  # noqa: E402
from ase import Atoms  # noqa: E402
from ase.calculators.singlepoint import SinglePointCalculator  # noqa: E402
from tqdm import tqdm  # noqa: E402

from dimenet_tf.data.inputs import read_frames  # noqa: E402
from dimenet_tf.elements import symbols  # noqa: E402
from dimenet_tf.errors import UserError  # noqa: E402
from dimenet_tf.predictor import Predictor, load  # noqa: E402


def predict_file(predictor: Predictor, source: Path, target: Path, batch_size: int) -> int:
    """Predict the molecules of a file, in order and in constant memory; return how many.

    Properties are written as numbers of the comment line (as energy and forces of a calculator where the model has
    forces); what the file said of the molecules stays. The target is there when it is complete.
    """
    if target.suffix not in (".extxyz", ".xyz"):
        raise UserError(f"{target}: predictions are written as extended XYZ (.extxyz or .xyz)")
    unfinished = target.with_name(f".{target.name}.part")
    done = 0
    try:
        with unfinished.open("w") as file, tqdm(unit="molecule", dynamic_ncols=True) as bar:
            for chunk in chunks(read_frames(source), batch_size):
                try:
                    predicted = predictor.predict(chunk, batch_size)
                except UserError as error:
                    last = done + len(chunk) - 1
                    where = f"{source}, among its molecules {done} ... {last} (counted from {done})"
                    raise UserError(f"{where}: {error}") from None
                label(chunk, predicted, predictor)
                ase.io.extxyz.write_xyz(file, chunk)
                done += len(chunk)
                bar.update(len(chunk))
        unfinished.replace(target)
    finally:
        unfinished.unlink(missing_ok=True)
    return done


def chunks(items: Iterator[Atoms], size: int) -> Iterator[list[Atoms]]:
    """Yield lists of up to `size` items."""
    while chunk := list(itertools.islice(items, size)):
        yield chunk


def label(frames: list[Atoms], predicted: dict[str, np.ndarray], predictor: Predictor) -> None:
    """Attach predictions to their molecules."""
    for i, atoms in enumerate(frames):
        values = {name: float(array[i]) for name, array in predicted.items() if name != "forces"}
        if predictor.energy is not None:
            energy, forces = values.pop(predictor.energy), predicted["forces"][i, : len(atoms)]
            atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=forces)
        else:
            atoms.calc = None  # what the file said of the energy is no prediction of this model
        atoms.info.update(values)


def describe(predictor: Predictor) -> dict:
    """Return what a user wants to know of a model."""
    return {
        "model": predictor.model_name,
        "parameters": predictor.model.count_params(),
        "predicts": predictor.units,
        "elements": symbols(predictor.elements),
        "precision": predictor.precision,
        "hyperparameters": {k: v for k, v in predictor.model.get_config().items() if k not in ("name", "dtype")},
    }


@one_line_errors()
def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m dimenet_tf", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    predict = commands.add_parser("predict", help="molecules of a file -> their properties")
    predict.add_argument("model")
    predict.add_argument("input", type=Path, help="extended XYZ, or what else ASE reads")
    predict.add_argument("output", type=Path, help="extended XYZ")
    predict.add_argument("--batch-size", type=int, default=32)
    export = commands.add_parser("export", help="write a SavedModel for TensorFlow Serving")
    export.add_argument("model")
    export.add_argument("folder", help="a numbered folder: served/1")
    export.add_argument("--max-atoms", type=int, default=1000, help="of a molecule; larger ones are refused")
    info = commands.add_parser("info", help="what a model predicts")
    info.add_argument("model")
    args = parser.parse_args()
    predictor = load(args.model)
    if args.command == "predict":
        if args.batch_size < 1:
            raise UserError(f"--batch-size {args.batch_size} must be at least 1")
        print(f"{predict_file(predictor, args.input, args.output, args.batch_size)} molecules: {args.output}")
    elif args.command == "export":
        predictor.export(args.folder, args.max_atoms)
        print(f"{args.folder}: signatures serving_default, flat, edges; predicts {', '.join(predictor.units)}")
    else:
        print(json.dumps(describe(predictor), indent=1))


if __name__ == "__main__":
    main()
