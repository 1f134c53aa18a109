"""How many numbers the backward pass keeps of each edge: what models forecast their memory by."""

from __future__ import annotations

import tensorflow as tf

from dimenet_tf.layers.aggregation import Harmonics


def dense_layers(block: tf.keras.layers.Layer) -> list[tf.keras.layers.Dense]:
    return [layer for layer in block.submodules if isinstance(layer, tf.keras.layers.Dense)]


def kept_by_dense(block: tf.keras.layers.Layer) -> int:
    """Return how many numbers a row of each dense layer keeps: input, sigmoid and output."""
    return sum(3 * layer.units for layer in dense_layers(block))


def kept_by_directional_blocks(model: tf.keras.Model, neighbors: float) -> float:
    """Return the numbers of DimeNet and DimeNet++."""
    embedding, *of_blocks = (kept_by_dense(block) for block in (model.emb_block, *model.int_blocks))
    pairs = [kept_by_pairs(model, block, neighbors) for block in model.int_blocks]
    per_block = [embedding, *(d + p for d, p in zip(of_blocks, pairs))]
    if model.recompute:  # one half of one block, and the messages between the halves
        return max(per_block) + 3 * model.emb_size * len(per_block)
    return sum(per_block) + 2 * model.emb_size * len(model.output_blocks)


def kept_by_pairs(model: tf.keras.Model, block: tf.keras.layers.Layer, neighbors: float) -> float:
    """Return the numbers that the sum over neighbors keeps in one block of DimeNet or DimeNet++."""
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
