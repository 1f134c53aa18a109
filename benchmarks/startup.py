"""Start-up and step times of the published sizes: `python benchmarks/startup.py [--data FILE.npz] [--threads N]`.

Every model in a process of its own: import, construction, first training step, median of later steps, peak memory.
A batch is the first 32 molecules of the file (of the embedded sample where none is given).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path


def measure(args: argparse.Namespace) -> dict:
    """Measure one model in this process."""
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    start = time.perf_counter()
    import tensorflow as tf

    tensorflow_import = time.perf_counter() - start
    tf.config.threading.set_inter_op_parallelism_threads(args.threads)
    tf.config.threading.set_intra_op_parallelism_threads(args.threads)
    start = time.perf_counter()
    import numpy as np

    from dimenet_tf.data import read_file, sample
    from dimenet_tf.data.pipeline import Batch
    from dimenet_tf.graph import Graph, graph_signature
    from dimenet_tf.heads import ScalarHead
    from dimenet_tf.predictor import Predictor
    from dimenet_tf.training.optimizer import create_optimizer_weights, make_optimizer
    from dimenet_tf.training.schedules import WarmupExponentialDecay
    from dimenet_tf.training.trainer import TrainingModel

    package_import = time.perf_counter() - start
    start = time.perf_counter()
    head = ScalarHead(["t"], [""], np.zeros((1, 95)), [0.0], [1.0])
    predictor = Predictor(args.model, {"aggregation": args.aggregation}, head, range(1, 95))
    construction = time.perf_counter() - start

    data = (read_file(args.data) if args.data else sample()).select(np.arange(32))
    store = predictor.graph_store(data.N, data.Z, data.R)
    graph = Graph(*map(tf.constant, store.batch(range(32))))
    batch = Batch(graph, tf.zeros([32, 1], tf.float64), tf.constant(1 / 32, tf.float64))
    training = TrainingModel(predictor, 1000.0)
    optimizer = make_optimizer(WarmupExponentialDecay(1e-3, 100, 1000, 0.1), 0.999)
    training.compile(optimizer=optimizer)
    create_optimizer_weights(optimizer, predictor.trainable_variables)
    scalar = tf.TensorSpec([], tf.float64)
    signature = Batch(graph_signature(), tf.TensorSpec([None, 1], tf.float64), scalar)
    step = tf.function(training.train_step, input_signature=[signature])

    def timed(function, argument) -> tuple[float, float]:
        wall, cpu = time.perf_counter(), time.process_time()
        result = function(argument)
        tf.nest.map_structure(lambda t: t.numpy(), result)
        return time.perf_counter() - wall, time.process_time() - cpu

    first_step = timed(step, batch)[0]
    steps = [timed(step, batch) for _ in range(args.repeats)]
    timed(predictor.predict_graph, graph)
    predictions = [timed(predictor.predict_graph, graph) for _ in range(args.repeats)]
    return {
        "import tensorflow / s": tensorflow_import,
        "import the rest / s": package_import,
        "construction / s": construction,
        "first step / s": first_step,
        "step, wall / s": statistics.median(s[0] for s in steps),
        "step, CPU / s": statistics.median(s[1] for s in steps),
        "predict, wall / s": statistics.median(p[0] for p in predictions),
        "predict, CPU / s": statistics.median(p[1] for p in predictions),
        "peak memory / GB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        "edges": len(graph.edge_source),
    }


def processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="npz file; its first 32 molecules are the batch")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--ways", default="dimenet:sum_first,dimenet_pp:sum_first,dimenet_pp:triplets")
    parser.add_argument("--model", help=argparse.SUPPRESS)
    parser.add_argument("--aggregation", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.model:
        print(json.dumps(measure(args)))
        return
    columns = {}
    for way in args.ways.split(","):
        model, aggregation = way.split(":")
        command = [sys.executable, __file__, *sys.argv[1:], "--model", model, "--aggregation", aggregation]
        columns[way] = json.loads(subprocess.check_output(command, text=True).splitlines()[-1])
    print(f"{processor()}, {args.threads} thread(s), Python {platform.python_version()}, median of {args.repeats}\n")
    print("| | " + " | ".join(columns) + " |\n|" + " --- |" * (len(columns) + 1))
    for key in next(iter(columns.values())):
        print(f"| {key} | " + " | ".join(f"{c[key]:.4g}" for c in columns.values()) + " |")


if __name__ == "__main__":
    main()
