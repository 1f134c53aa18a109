"""Periodic boxes of liquid water against the same boxes with open boundaries: `python benchmarks/cells.py`.

Energy and forces (and stress where a box is periodic), models of published size, 5 Angstrom. Atoms at the surface of an
open box have fewer neighbors; the last column compares the time per neighbor. Each line is measured in its own process.
"""

from __future__ import annotations

import argparse
import json
import sys

from common import in_its_own_process, print_machine, set_threads, timed, water_box

KINDS = ("open", "periodic")


def measure(options: dict) -> dict:
    import numpy as np

    from dimenet_tf.predictor import Predictor
    from dimenet_tf.properties.heads import scalar_head

    N, Z, R = water_box(options["atoms"])
    Z, R = Z.astype(np.int32), R.astype(np.float32)
    side = (len(Z) / 3 * 29.9) ** (1 / 3)
    cells = (np.eye(3)[None] * side, np.ones((1, 3), bool)) if options["periodic"] else ()
    head = scalar_head(["energy"], ["eV"], np.zeros((1, 95)), [0.0], [1.0])
    hyperparameters = {"cutoff": 5.0, **({"aggregation": "harmonics"} if options["model"] == "dimenet_pp" else {})}
    predictor = Predictor(options["model"], hyperparameters, head, [1, 8], energy="energy", periodic=True)

    def build():
        return predictor.graph_store(N, Z, R, *cells).batch([0])

    build()
    _, search = timed(build, options["repeats"])
    graph = build().to_tensors()
    predictor.predict_graph(graph)
    _, cpu = timed(predictor.predict_graph, options["repeats"], graph)
    times = {"search": search, "cpu": cpu}
    milliseconds = {name: 1000 * seconds / len(Z) for name, seconds in times.items()}
    return {"neighbors": len(graph.edge_source) / len(Z), **milliseconds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["painn", "dimenet_pp"])
    parser.add_argument("--atoms", nargs="+", type=int, default=[192, 999, 3000, 9999])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--worker", type=json.loads)
    args = parser.parse_args()
    if args.worker:
        set_threads(args.worker["threads"])
        print(json.dumps(measure(args.worker)))
        return
    print_machine(args.threads)
    columns = ("model", "atoms", "boundaries", "neighbors", "graph / ms per atom", "energy, forces / CPU ms per atom")
    print(f"| {' | '.join(columns)} | periodic over open | the same per neighbor |\n|{' --- |' * 8}")
    for model in args.models:
        for atoms in args.atoms:
            options = {"model": model, "atoms": atoms, "repeats": args.repeats, "threads": args.threads}
            both = {name: in_its_own_process(__file__, {**options, "periodic": name == "periodic"}) for name in KINDS}
            ratio = both["periodic"]["cpu"] / both["open"]["cpu"]
            per_neighbor = ratio * both["open"]["neighbors"] / both["periodic"]["neighbors"]
            for name, r in both.items():
                numbers = f"{r['neighbors']:.1f} | {r['search']:.3f} | {r['cpu']:.3f}"
                ratios = f"{ratio:.2f} | {per_neighbor:.2f}" if name == "periodic" else " | "
                print(f"| {model} | {atoms} | {name} | {numbers} | {ratios} |", flush=True)


if __name__ == "__main__":
    sys.exit(main())
