"""Estimate peak memory before training starts."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import tensorflow as tf

from dimenet_tf.graph import GraphStore
from dimenet_tf.predictor import Predictor

FORCES = 2.3  # how much more a step with forces keeps, as measured with both models


def largest_batch(store: GraphStore, batches: Iterable[np.ndarray]) -> tuple[int, float]:
    """Return the edges of the largest batch and the neighbors of an atom in it."""
    edges, atoms = store.sizes("edges"), store.sizes("atoms")
    sizes = [(int(edges[batch].sum()), int(atoms[batch].sum())) for batch in batches]
    most = max(sizes)
    return most[0], most[0] / most[1]


def forecast(predictor: Predictor, edges: int, neighbors: float) -> float:
    """Estimate the bytes that a training step needs for its edges, in addition to TensorFlow and the model."""
    with_gradient = predictor.energy is not None and not predictor.model.direct_forces
    size = tf.as_dtype(predictor.dtype).size * (FORCES if with_gradient else 1)
    return edges * size * predictor.model.kept_per_edge(neighbors)


def available_memory() -> float | None:
    """Read the free memory of this machine in bytes; None if the system does not report it."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return float(next(line.split()[1] for line in lines if line.startswith("MemAvailable"))) * 1024
    except (OSError, StopIteration):
        return None


def memory_line(predictor: Predictor, edges: int, neighbors: float) -> str:
    """Describe the memory of the largest batch, with a warning if less is free."""
    needed, free = forecast(predictor, edges, neighbors), available_memory()
    about = f"{needed / 1e9:.1f} GB" if needed > 1e8 else f"{needed / 1e6:.0f} MB"
    line = f"memory: about {about} for the largest batch ({edges:,} edges)"
    if free is None or tf.config.list_physical_devices("GPU"):
        return line
    if needed < free:
        return f"{line}; {free / 1e9:.1f} GB are free"
    fitting = max(int(edges * free / needed), 1)
    recompute = ", or model.recompute=True" if "recompute" in predictor.model.get_config() else ""
    return (
        f"WARNING: {line}, but only {free / 1e9:.1f} GB are free: training may be killed. Set training.batch_size=None "
        f"training.budget.edges={fitting}{recompute}"
    )
