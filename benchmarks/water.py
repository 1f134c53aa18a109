"""Energy and forces of boxes of liquid water: `python benchmarks/water.py [--ways harmonics triplets] [--atoms 192]`.

DimeNet++ of published size, 5 Angstrom, open boundaries. Each line is measured in its own process. "+" means
`recompute`; "pyg" is PyTorch Geometric's DimeNet++ (with torch and torch_geometric). `--cutoffs 3 4 5 6 7 8`
measures the cost against the cutoff instead, at the first number of atoms, and `--plot FILE` draws it.
"""

from __future__ import annotations

import argparse
import json
import sys
import time

from common import in_its_own_process, peak_memory, print_machine, set_threads, timed, water_box
from speed import against


def measure(options: dict) -> dict:
    import numpy as np

    from dimenet_tf.predictor import Predictor
    from dimenet_tf.properties.heads import scalar_head

    N, Z, R = water_box(options["atoms"])
    if options["way"] == "pyg":
        result = against("dimenet_pp", (N, Z, R), options, ("energy + forces",))
        wall, cpu = (1000 * result[f"energy + forces, {clock} / s"] / len(Z) for clock in ("wall", "CPU"))
        return {"wall": wall, "cpu": cpu, "memory": peak_memory()}
    head = scalar_head(["energy"], ["eV"], np.zeros((1, 95)), [0.0], [1.0])
    way, recompute = options["way"].rstrip("+"), options["way"].endswith("+")
    hyperparameters = {"aggregation": way, "recompute": recompute, "cutoff": options["cutoff"]}
    predictor = Predictor("dimenet_pp", hyperparameters, head, [1, 8], energy="energy")
    start = time.perf_counter()
    graph = predictor.graph_store(N, Z, R).batch([0])
    graph_time = time.perf_counter() - start
    graph = graph.to_tensors()
    predictor.predict_graph(graph)
    wall, cpu = timed(predictor.predict_graph, options["repeats"], graph)
    return {
        "neighbors": len(graph.edge_source) / len(Z),
        "graph": graph_time,
        "wall": 1000 * wall / len(Z),
        "cpu": 1000 * cpu / len(Z),
        "memory": peak_memory(),
    }


def plot(results: dict[tuple[str, float], dict], path: str) -> None:
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(5, 3.5), layout="constrained")
    for way in dict.fromkeys(way for way, _ in results):
        points = [(cutoff, r["cpu"]) for (w, cutoff), r in results.items() if w == way and r]
        axes.plot(*zip(*points), marker="o", label=way)
    axes.set(xlabel="cutoff / Å", ylabel="energy and forces, CPU ms per atom", yscale="log")
    axes.legend()
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ways", nargs="+", default=["harmonics+", "harmonics", "sum_first", "triplets"])
    parser.add_argument("--atoms", type=int, nargs="+", default=[192, 648, 1536, 6144, 12288])
    parser.add_argument("--cutoffs", type=float, nargs="+", default=[5.0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--plot")
    parser.add_argument("--worker", type=json.loads, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        set_threads(args.worker["threads"])
        print(json.dumps(measure(args.worker)))
        return
    print_machine(args.threads)
    print(
        "| way | cutoff / Ang | atoms | neighbors | graph / s | wall / ms per atom | CPU / ms per atom | memory / GB |"
    )
    print("|" + " --- |" * 8)
    results = {}
    for way in args.ways:
        for cutoff in args.cutoffs:
            for atoms in args.atoms if len(args.cutoffs) == 1 else args.atoms[:1]:
                shared = {"repeats": args.repeats, "threads": args.threads}
                options = {"way": way, "cutoff": cutoff, "atoms": atoms, **shared}
                r = results[way, cutoff] = in_its_own_process(sys.argv[0], options)
                cells = (
                    [f"{r[key]:.3g}" if key in r else "" for key in ("neighbors", "graph", "wall", "cpu", "memory")]
                    if r
                    else ["-"] * 5
                )
                print(f"| {way} | {cutoff:g} | {atoms} | {' | '.join(cells)} |", flush=True)
                if not r:  # larger ones would not fit either
                    break
    if args.plot:
        plot(results, args.plot)


if __name__ == "__main__":
    main()
