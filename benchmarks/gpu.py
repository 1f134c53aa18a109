"""Time steps of the published sizes on one GPU: `python benchmarks/gpu.py [--columns NAMES] [--sizes 1,32,1024]`.

Every column is a model, launched kernel by kernel ("eager") or compiled by XLA ("compiled"): milliseconds of a
prediction, a training step, energy + forces and a training step with forces, and the memory of the card. A batch is the
first molecules of the embedded sample, repeated where it has fewer. Columns run in processes that compile side by
side and are timed one after another. `--against` adds PyTorch Geometric's DimeNet++ on the same card, eager and
compiled by torch.compile, run by the Python that `--torch` names.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import functools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from common import print_table, small_molecules, timed

TASKS = ("predict", "training step", "energy + forces", "training step with forces")
COLUMNS = "dimenet_pp:sum_first,dimenet_pp:harmonics,dimenet:sum_first,gemnet_t:sum_first,painn:auto"
COLUMNS += ",spherenet:published,gemnet_q:sum_first,dpgn:auto"


@contextlib.contextmanager
def alone(lock: str) -> Iterator[None]:
    """Wait until no other process uses the card, and keep it."""
    with Path(lock).open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def measure(options: dict) -> dict:
    model, way, mode = options["column"].split(":")
    if way == "pyg":
        return against(options)
    import numpy as np
    import tensorflow as tf
    from speed import GEMNETS, training_step

    from dimenet_tf.graph import graph_signature
    from dimenet_tf.predictor import Predictor
    from dimenet_tf.properties.heads import scalar_head

    gpus = tf.config.list_physical_devices("GPU")
    if not gpus and not options["cpu"]:
        raise SystemExit("TensorFlow finds no GPU (--cpu measures the CPU)")
    head = scalar_head(["energy"], ["eV"], np.zeros((1, 95)), [0.0], [1.0])
    key = "torsion" if model == "spherenet" else "aggregation"
    hyperparameters = {**({} if way == "auto" else {key: way}), **GEMNETS.get(model, {})}
    name = "gemnet" if model in GEMNETS else model
    plain = Predictor(name, hyperparameters, head, range(1, 95), options["precision"])
    calls: dict[str, Callable] = {}
    result: dict[str, float] = {}
    for size in options["sizes"]:
        graph = plain.graph_store(*small_molecules(None, size)).batch(range(size)).to_tensors()
        result[f"{size}: edges"] = len(graph.edge_source)
        for with_forces in (False, True):
            predictor = plain.with_forces("energy") if with_forces else plain
            signature, compiled = [graph_signature(predictor.dtype, predictor.model.needs)], mode == "compiled"
            predict = tf.function(predictor.compute, input_signature=signature, jit_compile=compiled)
            for task, function in zip(TASKS[2 * with_forces :], (predict, training_step(predictor, compiled))):

                def call(function=function, graph=graph):
                    for array in tf.nest.flatten(function(graph)):
                        array.numpy()

                calls[f"{size}: {task}"] = call

    def reset() -> None:
        if gpus:
            tf.config.experimental.reset_memory_stats("GPU:0")

    def peak() -> float:
        return tf.config.experimental.get_memory_info("GPU:0")["peak"] if gpus else 0

    return result | measure_all(calls, options, reset, peak)


def measure_all(calls: dict[str, Callable], options: dict, reset: Callable, peak: Callable) -> dict[str, float]:
    """Call everything once while other columns do so, then time it while they wait."""
    result, ready = {}, {}
    for name, call in calls.items():
        start = time.perf_counter()
        try:
            call()
        except Exception as error:  # of TensorFlow or PyTorch: what cannot be compiled is left out
            print(f"{options['column']}, {name}: {str(error)[:300]}", file=sys.stderr)
            continue
        result[f"{name}, first / s"] = time.perf_counter() - start
        ready[name] = call
        if time.time() > options["compile_until"]:
            break
    Path(options["result"]).with_suffix(".ready").touch()
    folder = Path(options["result"]).parent
    while len(list(folder.glob("*.ready"))) < options["columns"] and time.time() < options["compile_until"] + 30:
        time.sleep(0.5)
    with alone(options["lock"]):
        for name, call in ready.items():
            call()
            reset()
            result[f"{name} / ms"] = 1000 * timed(call, options["repeats"])[0]
            result[f"{name} / GB"] = peak() / 1e9
    return result


def against(options: dict) -> dict:
    """Measure PyTorch Geometric's DimeNet++ on the same molecules, given their edges and triplets."""
    import numpy as np
    import torch
    import torch_geometric.nn.models.dimenet as theirs

    mode = options["column"].split(":")[2]
    torch.backends.cuda.matmul.allow_tf32 = False
    sizes = {"hidden_channels": 128, "out_channels": 1, "num_spherical": 7, "num_radial": 6, "cutoff": 5.0}
    sizes.update(num_blocks=4, int_emb_size=64, basis_emb_size=8, out_emb_channels=256)
    calls: dict[str, Callable] = {}
    for size in options["sizes"]:
        arrays = np.load(Path(options["graphs"]) / f"{size}.npz")
        index = {name: torch.from_numpy(arrays[name].astype(np.int64)).cuda() for name in arrays if name != "positions"}
        network = theirs.DimeNetPlusPlus(**sizes, output_initializer="glorot_orthogonal").cuda()
        optimizer = torch.optim.Adam(network.parameters(), amsgrad=True)
        positions = torch.from_numpy(arrays["positions"]).cuda()
        forward = torch.compile(network) if mode == "compiled" else network

        def give_edges(index=index):
            source, target, kj, ji = (index[f] for f in ("edge_source", "edge_target", "triplet_kj", "triplet_ji"))
            theirs.radius_graph = lambda *args, **kwargs: torch.stack([source, target])
            theirs.triplets = lambda *args, **kwargs: (target, source, target[ji], source[ji], source[kj], kj, ji)

        def energies(with_forces, training, positions=positions, index=index, network=forward, give_edges=give_edges):
            give_edges()
            r = positions.clone().requires_grad_(with_forces)
            energy = network(index["atomic_numbers"], r, index["molecule_of_atom"])
            if not with_forces:
                return energy, torch.zeros(1, device="cuda")
            return energy, -torch.autograd.grad(energy.sum(), r, create_graph=training)[0]

        def predict(with_forces, energies=energies):
            with torch.set_grad_enabled(with_forces):
                energies(with_forces, False)
            torch.cuda.synchronize()

        def step(with_forces, energies=energies, optimizer=optimizer):
            optimizer.zero_grad()
            energy, forces = energies(with_forces, True)
            (energy.abs().mean() + forces.abs().mean()).backward()
            optimizer.step()
            torch.cuda.synchronize()

        for with_forces in (False, True):
            for task, function in zip(TASKS[2 * with_forces :], (predict, step)):
                calls[f"{size}: {task}"] = functools.partial(function, with_forces)
    return measure_all(calls, options, torch.cuda.reset_peak_memory_stats, torch.cuda.max_memory_allocated)


def write_graphs(folder: Path, sizes: list[int]) -> None:
    """Write the edges and triplets of the batches, for a Python that lacks TensorFlow."""
    import numpy as np

    from dimenet_tf.graph import GraphStore

    for size in sizes:
        graph = GraphStore(*small_molecules(None, size), 5.0, ["triplets"]).batch(range(size))
        fields = ("edge_source", "edge_target", "triplet_kj", "triplet_ji", "atomic_numbers", "molecule_of_atom")
        arrays = {name: getattr(graph, name) for name in fields}
        np.savez(folder / f"{size}.npz", positions=graph.positions, **arrays)


def print_card() -> None:
    fields = "name,driver_version,clocks.sm,clocks.max.sm,clocks.mem,memory.total"
    with contextlib.suppress(OSError):
        print(
            subprocess.run(
                ["nvidia-smi", f"--query-gpu={fields}", "--format=csv"], text=True, capture_output=True
            ).stdout
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="1,32,1024", help="molecules in a batch, separated by commas")
    parser.add_argument("--columns", default=COLUMNS, help="model:way, separated by commas")
    parser.add_argument("--modes", default="eager,compiled")
    parser.add_argument("--repeats", type=int, default=50)
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--against", action="store_true")
    parser.add_argument("--torch", default="python3", help="a Python with torch and torch_geometric")
    parser.add_argument("--cpu", action="store_true", help="run without a GPU, to try the script")
    parser.add_argument("--compile-limit", type=float, default=300, help="seconds for the first calls of all columns")
    parser.add_argument("--limit", type=float, default=550, help="seconds after which a column is given up")
    parser.add_argument("--worker", type=json.loads, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        result = measure(args.worker)
        Path(args.worker["result"]).write_text(json.dumps(result))
        return
    sizes = [int(size) for size in args.sizes.split(",")]
    columns = [f"{column}:{mode}" for column in args.columns.split(",") for mode in args.modes.split(",")]
    print_card()
    with tempfile.TemporaryDirectory() as folder:
        shared = {"sizes": sizes, "repeats": args.repeats, "precision": args.precision, "cpu": args.cpu}
        if args.against:
            write_graphs(Path(folder), sizes)
            columns += [f"dimenet_pp:pyg:{mode}" for mode in args.modes.split(",")]
        shared |= {"lock": f"{folder}/lock", "graphs": folder, "columns": len(columns)}
        shared["compile_until"] = time.time() + args.compile_limit
        processes = []
        plain = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
        for column in columns:
            options = json.dumps({"column": column, "result": f"{folder}/{column}.json", **shared})
            theirs = ":pyg:" in column
            command = [args.torch if theirs else sys.executable, __file__, "--worker", options]
            processes.append(subprocess.Popen(command, env=plain if theirs else None))
        deadline = time.monotonic() + args.limit
        for process in processes:
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
        results = {column: Path(folder) / f"{column}.json" for column in columns}
        print_table({column: json.loads(file.read_text()) for column, file in results.items() if file.exists()})
        print_card()


if __name__ == "__main__":
    main()
