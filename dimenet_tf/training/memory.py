"""What a training step needs of the machine's memory, before it is made."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import tensorflow as tf

from dimenet_tf.graph import GraphStore
from dimenet_tf.layers.aggregation import Harmonics
from dimenet_tf.models.gemnet import GemNet
from dimenet_tf.models.painn import PaiNN
from dimenet_tf.predictor import Predictor

FORCES = 2.3  # how much more a step with forces keeps, as measured with both models


def largest_batch(store: GraphStore, batches: Iterable[np.ndarray]) -> tuple[int, float]:
    """Return the edges of the largest batch and the neighbors of an atom in it."""
    edges, atoms = store.sizes("edges"), store.sizes("atoms")
    sizes = [(int(edges[batch].sum()), int(atoms[batch].sum())) for batch in batches]
    most = max(sizes)
    return most[0], most[0] / most[1]


def forecast(predictor: Predictor, edges: int, neighbors: float) -> float:
    """Return about how many bytes a training step with a batch of so many edges needs beside TensorFlow and the model.

    Counted is what the backward pass keeps for each edge: input, sigmoid and output of every dense layer and what the
    sums over neighbors hold.
    """
    model = predictor.model
    size = tf.as_dtype(predictor.dtype).size * (1 if predictor.energy is None or model.direct_forces else FORCES)
    if isinstance(model, GemNet):
        return edges * size * kept_by_gemnet(model, neighbors)
    if isinstance(model, PaiNN):
        return edges * size * kept_by_painn(model, neighbors)
    blocks = [model.emb_block, *model.int_blocks]
    dense = [sum(3 * layer.units for layer in dense_layers(block)) for block in blocks]
    pairs = [kept_by_pairs(model, block, neighbors) for block in model.int_blocks]
    per_block = [dense[0], *(d + p for d, p in zip(dense[1:], pairs))]
    if model.recompute:  # one half of one block, and the messages between the halves
        floats = max(per_block) + 3 * model.emb_size * len(blocks)
    else:
        floats = sum(per_block) + 2 * model.emb_size * len(model.output_blocks)
    return edges * size * floats


def kept_by_gemnet(model: GemNet, neighbors: float) -> float:
    """Return the numbers that GemNet keeps for each edge; a and b of quadruplets are taken to be neighbors."""
    dense = sum(3 * layer.units for layer in dense_layers(model))
    triplets = 3 * neighbors * model.emb_size_cbf + 3 * model.emb_size_cbf * model.emb_size_trip
    if model.triplets_only:
        return dense + model.num_blocks * triplets
    harmonics, messages = model.num_spherical**2, model.emb_size_quad
    quadruplets = (2 * harmonics + 3 * model.emb_size_sbf + 4 * neighbors) * messages
    return dense + model.num_blocks * (triplets + quadruplets) + 3 * harmonics * neighbors**2


def kept_by_painn(model: PaiNN, neighbors: float) -> float:
    """Return the numbers that PaiNN keeps for each edge: filters and features of neighbors; and what atoms keep."""
    vectors = {1: 0, 2: 1, 3: 4}[model.kinds]  # arrays of the size of a filter that are summed into vectors
    of_edges = model.num_blocks * (model.kinds + 1 + vectors) * model.emb_size
    # those without bias mix vectors, which have three components
    of_atoms = sum(3 * layer.units * (1 if layer.use_bias else 3) for layer in dense_layers(model))
    return of_edges + of_atoms / max(neighbors, 1.0)


def dense_layers(block: tf.keras.layers.Layer) -> list[tf.keras.layers.Dense]:
    return [layer for layer in block.submodules if isinstance(layer, tf.keras.layers.Dense)]


def kept_by_pairs(model: tf.keras.Model, block: tf.keras.layers.Layer, neighbors: float) -> float:
    """Return the numbers that the sum over neighbors keeps for each edge in one block."""
    if not model.needs:
        return 0.0  # no angles
    outer = hasattr(block, "num_bilinear")
    units = block.num_bilinear if outer else block.basis_emb_size
    features = block.emb_size if outer else block.int_emb_size
    wide = units * features  # of what is summed, if it is summed before the kernel is applied
    if "triplets" in model.needs:
        return neighbors * (0.7 * wide if outer else 4 * features)
    if model.aggregation_class is Harmonics:
        return 3 * model.num_spherical * (wide if outer else features)
    return 1.5 * neighbors * 2 * units + 3 * wide


def available_memory() -> float | None:
    """Return the bytes that are free on this machine, where it says so."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return float(next(line.split()[1] for line in lines if line.startswith("MemAvailable"))) * 1024
    except (OSError, StopIteration):
        return None


def memory_line(predictor: Predictor, edges: int, neighbors: float) -> str:
    """Return what to tell the user; a warning where the machine has less."""
    needed, free = forecast(predictor, edges, neighbors), available_memory()
    line = f"memory: about {needed / 1e9:.1f} GB for the largest batch ({edges:,} edges)"
    if free is None or tf.config.list_physical_devices("GPU"):
        return line
    if needed < free:
        return f"{line}; {free / 1e9:.1f} GB are free"
    fitting = max(int(edges * free / needed), 1)
    recompute = ", or model.recompute=True" if hasattr(predictor.model, "recompute") else ""
    return (
        f"WARNING: {line}, but only {free / 1e9:.1f} GB are free: training may be killed. Set training.batch_size=None "
        f"training.budget.edges={fitting}{recompute}"
    )
