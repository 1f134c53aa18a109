"""Measure the overhead of the ASE calculator: `python benchmarks/calculator.py [--molecules CH3CH2OH C60]`.

Each step moves the atoms and asks for the forces; the bare model computes the same graphs, made before. Medians.
"""

import argparse
import os
import time

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--molecules", nargs="+", default=["CH3CH2OH", "C6H6"])
parser.add_argument("--steps", type=int, default=300)
parser.add_argument("--threads", type=int, default=1)
args = parser.parse_args()
os.environ.update(TF_CPP_MIN_LOG_LEVEL="3", TF_NUM_INTRAOP_THREADS=str(args.threads), TF_NUM_INTEROP_THREADS="1")

import numpy as np  # noqa: E402
from ase.build import molecule  # noqa: E402

import dimenet_tf  # noqa: E402
from dimenet_tf.graph import SkinList  # noqa: E402
from dimenet_tf.md import DimeNetCalculator  # noqa: E402

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
