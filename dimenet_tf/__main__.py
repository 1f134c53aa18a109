"""Predict, export and describe trained models.

python -m dimenet_tf predict MODEL in.extxyz out.extxyz
python -m dimenet_tf export MODEL served/1
python -m dimenet_tf info MODEL

MODEL is a run folder, the name or folder of a pretrained model, or an exported SavedModel.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from dimenet_tf.cli import one_line_errors, quiet_tensorflow

quiet_tensorflow()

from dimenet_tf.bulk import predict_file  # noqa: E402
from dimenet_tf.domain import ACTIONS, NOT_RECORDED  # noqa: E402
from dimenet_tf.elements import symbols  # noqa: E402
from dimenet_tf.errors import UserError  # noqa: E402
from dimenet_tf.predictor import Predictor, load  # noqa: E402
from dimenet_tf.structures.units import LENGTH  # noqa: E402

PREDICT = """Predict the molecules of a file, in order and in constant memory.

The output is there when it is complete. Until then finished pieces lie beside it, in .OUTPUT.parts: the same command
goes on where it was stopped or killed. --processes and --shard may be others then; input, model, --piece and
--batch-size may not."""


def describe(predictor: Predictor) -> dict:
    """Return what a user wants to know of a model."""
    return {
        "model": predictor.model_name,
        "parameters": predictor.model.count_params(),
        "predicts": predictor.units,
        "heads": {part.target: part.name for part in predictor.head.parts},
        "elements": symbols(predictor.elements),
        "domain": NOT_RECORDED if predictor.domain is None else predictor.domain.describe(),
        "precision": predictor.precision,
        "hyperparameters": {k: v for k, v in predictor.model.get_config().items() if k not in ("name", "dtype")},
    }


def add_predict(commands: argparse._SubParsersAction) -> None:
    predict = commands.add_parser(
        "predict",
        help="molecules of a file -> their properties",
        description=PREDICT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    predict.add_argument("model")
    predict.add_argument(
        "input", type=Path, help="extended XYZ, npz (N, Z, R and id, or MD17's) or what else ASE reads; in Angstrom"
    )
    predict.add_argument(
        "output",
        type=Path,
        help="extended XYZ: the input with properties in the comment lines (also vectors, tensors), forces as columns; "
        "npz: id, an array for each property, and N, forces (sum of N, 3)",
    )
    predict.add_argument("--batch-size", type=int, default=32, help="molecules computed at once (32)")
    predict.add_argument("--processes", type=int, default=1, help="how many compute at the same time (1)")
    predict.add_argument("--piece", type=int, default=1000, help="molecules of a piece, the least that is kept (1000)")
    predict.add_argument(
        "--shard",
        default="1/1",
        metavar="k/n",
        help="compute the k-th of n shares, on machines with a common file system; the last one to end joins them",
    )
    predict.add_argument(
        "--on-bad",
        choices=("error", "skip"),
        default="error",
        help="at a molecule that cannot be predicted: stop (error), or keep its place in the output, without numbers "
        "in extended XYZ (error=... says why) and with NaN in npz (skip)",
    )
    predict.add_argument(
        "--domain",
        choices=ACTIONS,
        default="flag",
        help="molecules outside of the model's domain: mark them by in_domain (flag), or treat them as bad (error)",
    )
    predict.add_argument(
        "--length-unit",
        choices=tuple(LENGTH),
        help="of the positions; without it they are taken as Angstrom unless their bonds say otherwise",
    )
    predict.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)  # started by --processes


def run_predict(args: argparse.Namespace) -> None:
    try:
        k, n = (int(number) for number in args.shard.split("/"))
    except ValueError:
        raise UserError(f"--shard {args.shard} must be k/n: 1/4, 2/4, 3/4, 4/4 on four machines") from None
    try:
        summary = predict_file(
            args.model,
            args.input,
            args.output,
            args.batch_size,
            args.piece,
            args.processes,
            (k, n),
            args.on_bad,
            args.worker,
            args.domain,
            args.length_unit,
        )
    except KeyboardInterrupt:
        print("stopped: the same command goes on from here", file=sys.stderr)
        sys.exit(130)
    if summary:
        print(summary)


@one_line_errors()
def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m dimenet_tf", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    add_predict(commands)
    export = commands.add_parser("export", help="write a SavedModel for TensorFlow Serving")
    export.add_argument("model")
    export.add_argument("folder", help="a numbered folder: served/1")
    export.add_argument("--max-atoms", type=int, default=1000, help="of a molecule; larger ones are refused")
    export.add_argument(
        "--domain",
        choices=ACTIONS,
        default="flag",
        help="molecules outside of the model's domain: mark them by the output in_domain (flag), or refuse (error)",
    )
    info = commands.add_parser("info", help="what a model predicts")
    info.add_argument("model")
    args = parser.parse_args()
    if args.command == "predict":
        run_predict(args)
        return
    predictor = load(args.model)
    if args.command == "export":
        predictor.export(args.folder, args.max_atoms, args.domain)
        print(f"{args.folder}: signatures serving_default, flat, edges; predicts {', '.join(predictor.units)}")
    else:
        print(json.dumps(describe(predictor), indent=1))


if __name__ == "__main__":
    main()
