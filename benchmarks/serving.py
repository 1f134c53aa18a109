"""Concurrent clients of a SavedModel: `python benchmarks/serving.py [--clients 1 4] [--memory-requests 10000]`.

DimeNet++ of published size with forces is exported and loaded in this process without the library; every client is a
thread that sends its next request when it has the answer to the last. The second table sends requests of random
shapes and prints the memory of the process.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import threading
import time

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--clients", type=int, nargs="+", default=[1, 4])
parser.add_argument("--atoms", type=int, nargs="+", default=[9, 30, 90])
parser.add_argument("--batches", type=int, nargs="+", default=[1, 16])
parser.add_argument("--seconds", type=float, default=10, help="for each line of the first table")
parser.add_argument("--memory-requests", type=int, default=0)
parser.add_argument("--threads", type=int, default=2)
args = parser.parse_args()
os.environ.update(TF_CPP_MIN_LOG_LEVEL="3", TF_NUM_INTRAOP_THREADS=str(args.threads))

EXPORT = """
import sys
import numpy as np
from dimenet_tf.properties.heads import scalar_head
from dimenet_tf.predictor import Predictor
head = scalar_head(["energy"], ["eV"], np.zeros((1, 95)), [0.0], [1.0])
Predictor("dimenet_pp", {}, head, [1, 8], energy="energy").export(sys.argv[1])
"""
folder = tempfile.TemporaryDirectory()
path = os.path.join(folder.name, "1")
subprocess.run([sys.executable, "-c", EXPORT, path], check=True)

import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402

model = tf.saved_model.load(path)
serve = model.signatures["serving_default"]


def droplet(molecules: int, atoms: int, rng: np.random.Generator) -> dict[str, tf.Tensor]:
    """Copies of a droplet of water molecules at liquid density, moved a little."""
    water = np.array([[0, 0, 0.119], [0, 0.763, -0.477], [0, -0.763, -0.477]])
    count = atoms // 3
    side = int(np.ceil(count ** (1 / 3)))
    places = 3.1 * np.stack(np.meshgrid(*[np.arange(side)] * 3), axis=-1).reshape(-1, 3)[:count]
    R = (places[:, None] + water).reshape(1, -1, 3) + rng.normal(0, 0.02, (molecules, 3 * count, 3))
    Z = np.tile(np.array([8, 1, 1], np.int32), (molecules, count))
    return {"Z": tf.constant(Z), "R": tf.constant(R, tf.float32)}


def load(clients: int, requests: list[dict], seconds: float) -> np.ndarray:
    """Return the latencies of all requests answered in this time, in seconds."""
    latencies, end = [], time.perf_counter() + seconds

    def client(offset: int) -> None:
        turn = offset
        while time.perf_counter() < end:
            begin = time.perf_counter()
            serve(**requests[turn % len(requests)])
            latencies.append(time.perf_counter() - begin)
            turn += 1

    threads = [threading.Thread(target=client, args=[i]) for i in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return np.array(latencies)


def memory() -> int:
    """Return the memory of this process that is in use, MiB."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") >> 20


rng = np.random.default_rng(0)
print("| atoms | molecules in a request | clients | requests/s | molecules/s | p50 / ms | p95 / ms | p99 / ms |")
print("| --- | --- | --- | --- | --- | --- | --- | --- |")
for atoms in args.atoms:
    for molecules in args.batches:
        requests = [droplet(molecules, atoms, rng) for _ in range(8)]
        load(1, requests, 1)  # warm
        for clients in args.clients:
            begin = time.perf_counter()
            latencies = load(clients, requests, args.seconds)
            rate = len(latencies) / (time.perf_counter() - begin)
            p50, p95, p99 = 1000 * np.percentile(latencies, [50, 95, 99])
            print(
                f"| {atoms} | {molecules} | {clients} | {rate:.1f} | {rate * molecules:.1f} | {p50:.1f} | {p95:.1f} "
                f"| {p99:.1f} |",
                flush=True,
            )

if args.memory_requests:
    print("\n| requests of random shapes | memory / MiB |\n| --- | --- |")
    begin = time.perf_counter()
    for request in range(args.memory_requests + 1):
        if request % max(args.memory_requests // 10, 1) == 0:
            print(f"| {request} | {memory()} |", flush=True)
        serve(**droplet(int(rng.integers(1, 9)), 3 * int(rng.integers(1, 11)), rng))
    print(f"\n{time.perf_counter() - begin:.0f} s")
