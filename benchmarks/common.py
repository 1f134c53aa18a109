"""Shared parts of the benchmarks: separate processes, molecules, clocks, tables."""

from __future__ import annotations

import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

MOLECULES = 32


def set_threads(threads: int) -> None:
    """Say how many threads TensorFlow and PyTorch use; call this before importing them."""
    os.environ.update(
        TF_CPP_MIN_LOG_LEVEL="3",
        TF_NUM_INTRAOP_THREADS=str(threads),
        TF_NUM_INTEROP_THREADS="1",
        OMP_NUM_THREADS=str(threads),
    )


def in_its_own_process(script: str, options: dict, python: str = sys.executable) -> dict:
    """Run a script with the options as JSON; return the JSON of its last line."""
    command = [python, script, "--worker", json.dumps(options)]
    result = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if result.returncode != 0:
        print(f"{options}: ended with status {result.returncode}", file=sys.stderr)
        return {}
    return json.loads(result.stdout.splitlines()[-1])


def timed(function: Callable, repeats: int, *arguments) -> tuple[float, float]:
    """Return the medians of wall and CPU seconds of a call."""
    times = []
    for _ in range(repeats):
        wall, cpu = time.perf_counter(), time.process_time()
        function(*arguments)
        times.append((time.perf_counter() - wall, time.process_time() - cpu))
    return tuple(statistics.median(column) for column in zip(*times))


def peak_memory() -> float:
    """Return the largest memory of this process so far, GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def small_molecules(path: str | None, count: int = MOLECULES) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return N, Z, R of the first molecules of an npz file, or of the embedded sample, repeated where it has fewer."""
    from dimenet_tf.data import sample
    from dimenet_tf.structures.inputs import read_molecules

    if path:
        chosen = next(read_molecules(path, count))
    else:
        data = sample()
        chosen = data.select(np.arange(count) % len(data))
    return chosen.N, chosen.Z, chosen.R


def water_box(atoms: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return N, Z, R of a cube of water molecules at 1 g/cm3: a disturbed grid, every molecule turned at random."""
    from scipy.spatial.transform import Rotation

    count = atoms // 3
    rng = np.random.default_rng(seed)
    side = (count * 29.9) ** (1 / 3)  # Angstrom
    cells = int(np.ceil(count ** (1 / 3)))
    grid = np.stack(np.meshgrid(*[np.arange(cells) + 0.5] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    centers = grid[rng.permutation(len(grid))[:count]] * side / cells + rng.normal(0, 0.1, (count, 3))
    water = np.array([[0, 0, 0], [0.757, 0.587, 0], [-0.757, 0.587, 0]])
    turned = np.einsum("nij,aj->nai", Rotation.random(count, random_state=seed).as_matrix(), water)
    return np.array([3 * count]), np.tile([8, 1, 1], count), (centers[:, None] + turned).reshape(-1, 3)


def print_machine(threads: int) -> None:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    name = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())
    print(f"{name}, {os.cpu_count()} cores, {threads} thread(s), Python {platform.python_version()}\n")


def shown(number: float) -> str:
    return f"{number}" if isinstance(number, int) else f"{number:.4g}"


def print_table(columns: dict[str, dict]) -> None:
    """Print columns of numbers by row name; what a column lacks is left empty."""
    rows = list(dict.fromkeys(row for column in columns.values() for row in column))
    print("| | " + " | ".join(columns) + " |\n|" + " --- |" * (len(columns) + 1))
    for row in rows:
        cells = (shown(column[row]) if row in column else "" for column in columns.values())
        print(f"| {row} | " + " | ".join(cells) + " |", flush=True)
