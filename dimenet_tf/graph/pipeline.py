"""Batches of molecules -> a `tf.data.Dataset` of graphs and targets."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from dimenet_tf.graph import Graph, GraphStore, graph_signature


class Batch(NamedTuple):
    """One step's data of one replica."""

    graph: Graph
    targets: tf.Tensor
    """(molecules, targets) float64, in their units; NaN for a target that a molecule lacks."""
    forces: tf.Tensor
    """(atoms, 3) float64, eV/Angstrom, NaN for molecules that lack them; no rows where no forces are learned."""
    weight: tf.Tensor
    """() float64: 1 / molecules of all replicas in this step; losses are sums times this."""
    molecule_weights: tf.Tensor
    """(molecules,) float64: the loss of each molecule is multiplied by its weight."""


def make_dataset(
    store: GraphStore,
    targets: np.ndarray,
    batches: Callable[[], Iterator[np.ndarray]],
    num_replicas: int = 1,
    own: slice = slice(None),
    forces: np.ndarray | None = None,
    molecule_weights: np.ndarray | None = None,
) -> tf.data.Dataset:
    """Make a data set of `Batch`.

    Parameters
    ----------
    store : of all molecules
    targets : (molecules, targets) float64
    batches : called for a new iterator over arrays of molecules
    forces : (atoms of all molecules, 3) float64, where they are learned
    num_replicas : every batch is divided by molecules into so many elements, one for each replica; a graph is never cut
    molecule_weights : (molecules,) float64, 1 for all where left out
    own : which of them this data set has; the others are those of other workers
    """

    def elements() -> Iterator[dict]:
        for molecules in batches():
            for part in np.array_split(molecules, num_replicas)[own]:
                yield {
                    **_made_fields(store.batch(part)),
                    "targets": targets[part],
                    "forces": np.empty((0, 3)) if forces is None else forces[store.atoms(part)],
                    "weight": np.float64(1 / len(molecules)),
                    "molecule_weights": np.ones(len(part)) if molecule_weights is None else molecule_weights[part],
                }

    signature = {
        **_made_fields(graph_signature(store.dtype, store.needs)),
        "targets": tf.TensorSpec([None, targets.shape[1]], tf.float64),
        "forces": tf.TensorSpec([None, 3], tf.float64),
        "weight": tf.TensorSpec([], tf.float64),
        "molecule_weights": tf.TensorSpec([None], tf.float64),
    }

    def to_batch(element: dict) -> Batch:
        graph = Graph(**{field: element[field] for field in Graph._fields if field in element})
        return Batch(graph, **{field: element[field] for field in Batch._fields[1:]})

    return tf.data.Dataset.from_generator(elements, output_signature=signature).map(to_batch).prefetch(4)


def _made_fields(graph: Graph) -> dict:
    """Return the fields of a graph by name, without those that were not made: elements must be tensors."""
    return {field: value for field, value in graph._asdict().items() if not isinstance(value, tuple)}
