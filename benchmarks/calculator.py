"""Measure the overhead of the ASE calculator: `python benchmarks/calculator.py [--molecules CH3CH2OH C60]`.

Each step moves the atoms and asks for the forces; the bare model computes the same graphs, made before. Medians.

`python benchmarks/calculator.py --batched` compares a step of several structures as one batch (`dimenet_tf.md.Batched`)
with steps of one after the other, in turn in one process: ethanol with the pretrained force field, and cells of 32
copper atoms with a PaiNN that was never trained. It takes CPU time, which other programs disturb less.
"""

import argparse
import os
import time

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--molecules", nargs="+", default=["CH3CH2OH", "C6H6"])
parser.add_argument("--batched", action="store_true")
parser.add_argument("--steps", type=int, default=300, help="with --batched the rounds, of one step for every structure")
parser.add_argument("--threads", type=int, default=1)
args = parser.parse_args()
os.environ.update(TF_CPP_MIN_LOG_LEVEL="3", TF_NUM_INTRAOP_THREADS=str(args.threads), TF_NUM_INTEROP_THREADS="1")

import numpy as np  # noqa: E402
from ase.build import bulk, molecule  # noqa: E402

import dimenet_tf  # noqa: E402
from dimenet_tf.graph import SkinList  # noqa: E402
from dimenet_tf.md import Batched, DimeNetCalculator  # noqa: E402
from dimenet_tf.predictor import Predictor  # noqa: E402
from dimenet_tf.properties.heads import scalar_head  # noqa: E402


def compare(name, model, atoms, count):
    """Print the CPU time of a step of a batch, and of the same steps one after the other."""
    batch, singles = Batched(model, [atoms] * count), [atoms.copy() for _ in range(count)]
    for single in singles:
        single.calc = DimeNetCalculator(model)
    rng, start, times = np.random.default_rng(0), batch.atoms.positions.copy(), []
    for _ in range(args.steps + 1):
        batch.atoms.positions = start + rng.normal(0, 0.02, start.shape)
        for single, positions in zip(singles, np.split(batch.atoms.positions, count)):
            single.positions = positions
        begin = time.process_time()
        batch.atoms.get_forces()
        middle = time.process_time()
        for single in singles:
            single.get_forces()
        times.append((middle - begin, time.process_time() - middle))
    together, apart = 1000 * np.median(times[1:], axis=0) / count
    ratio = np.median([b / a for a, b in times[1:]])
    print(f"| {count} x {name} | {together:.2f} | {apart:.2f} | {ratio:.2f} |", flush=True)


if args.batched:
    print("| structures | batch / ms per structure | one after the other / ms | ratio |\n| --- | --- | --- | --- |")
    for count in (1, 64):
        compare("CH3CH2OH", dimenet_tf.load("dimenet_pp-ethanol_xtb-forces"), molecule("CH3CH2OH"), count)
    head = scalar_head(["energy"], ["eV"], np.zeros((1, 95)), [0.0], [1.0])
    copper = Predictor("painn", {}, head, [29], energy="energy", periodic=True)
    compare("Cu32", copper, bulk("Cu", cubic=True) * (2, 2, 2), 8)
    raise SystemExit

predictor = dimenet_tf.load("dimenet_pp-ethanol_xtb-forces")
predictor.domain = None  # time any molecule of its elements, whatever its energy means
print("| molecule | calculator / ms | model / ms | overhead / ms |\n| --- | --- | --- | --- |")
for name in args.molecules:
    atoms = molecule(name)
    atoms.calc = DimeNetCalculator(predictor)
    compute = predictor.graph_function.get_concrete_function()
    neighbors = SkinList(atoms.numbers, predictor.model.cutoff, 0.5, predictor.model.needs, predictor.dtype)
    rng, start, times = np.random.default_rng(0), atoms.positions.copy(), []
    for _ in range(args.steps):
        atoms.positions = start + rng.normal(0, 0.02, start.shape)
        graph = neighbors.graph(atoms.positions - atoms.positions.mean(axis=0)).to_tensors()
        begin = time.perf_counter()
        atoms.get_forces()
        middle = time.perf_counter()
        compute(graph)
        times.append((middle - begin, time.perf_counter() - middle))
    whole, bare = 1000 * np.median(times, axis=0)
    overhead = 1000 * np.median([a - b for a, b in times])
    print(f"| {name} | {whole:.2f} | {bare:.2f} | {overhead:.2f} |")
