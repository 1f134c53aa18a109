"""Cost of the checks of structures: `python benchmarks/checks.py [--rounds 200]`.

Compares, in turn in one process, a model with its recorded domain and the same model without, and shows the share of
the admission of molecules on the host. Medians of wall seconds.
"""

import argparse
import os
import time

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--rounds", type=int, default=200)
parser.add_argument("--threads", type=int, default=1)
args = parser.parse_args()
os.environ.update(TF_CPP_MIN_LOG_LEVEL="3", TF_NUM_INTRAOP_THREADS=str(args.threads), TF_NUM_INTEROP_THREADS="1")

import numpy as np  # noqa: E402
from ase.build import molecule  # noqa: E402

import dimenet_tf  # noqa: E402
from dimenet_tf.md import DimeNetCalculator  # noqa: E402
from dimenet_tf.structures.molecules import join_atoms  # noqa: E402

predictor = dimenet_tf.load("dimenet_pp-ethanol_xtb-forces")
without = predictor.clone()
without.domain = None
rng, ethanol = np.random.default_rng(0), molecule("CH3CH2OH")


def moved():
    atoms = ethanol.copy()
    atoms.positions += rng.normal(0, 0.02, atoms.positions.shape)
    return atoms


def step(atoms):
    atoms.positions += rng.normal(0, 0.01, atoms.positions.shape)
    atoms.get_forces()
    atoms.positions[:] = ethanol.positions


def calculated(model):
    atoms = ethanol.copy()
    atoms.calc = DimeNetCalculator(model)
    return lambda: step(atoms)


one, many = [moved()], [moved() for _ in range(32)]
cases = {
    "predict, 1 molecule": (lambda: predictor.predict(one), lambda: without.predict(one), one),
    "predict, 32 molecules": (lambda: predictor.predict(many), lambda: without.predict(many), many),
    "ASE step": (calculated(predictor), calculated(without), None),
}
print("| ethanol | with domain / ms | without / ms | ratio | admission / ms |\n| --- | --- | --- | --- | --- |")
for name, (checked, unchecked, frames) in cases.items():
    functions = [checked, unchecked]
    if frames is not None:
        molecules, admission = join_atoms(frames), predictor.admission
        functions.append(lambda admission=admission, molecules=molecules: admission.admit(molecules))
    for function in functions:
        function()  # traces
    times = []
    for _ in range(args.rounds):
        row = []
        for function in functions:
            begin = time.perf_counter()
            function()
            row.append(time.perf_counter() - begin)
        times.append(row)
    medians = 1000 * np.median(times, axis=0)
    ratio = np.median([row[0] / row[1] for row in times])
    admission = f"{medians[2]:.3f}" if frames is not None else ""
    print(f"| {name} | {medians[0]:.2f} | {medians[1]:.2f} | {ratio:.3f} | {admission} |")
