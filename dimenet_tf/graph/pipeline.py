"""Data sets of graphs and labels for training: `tf.data.Dataset` of `Batch`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from dimenet_tf.graph.graph import Array, Graph, graph_signature
from dimenet_tf.graph.store import GraphStore


class Batch(NamedTuple):
    """Graph and labels of one step on one replica."""

    graph: Graph
    targets: Array
    """(molecules, targets) float64, in their units; NaN for a target that a molecule lacks."""
    forces: Array
    """(atoms, 3) float64, eV/Angstrom; NaN for molecules without them and fixed atoms; no rows if none are learned."""
    stress: Array
    """(molecules, 3, 3) float64, eV/Angstrom^3, NaN for molecules that lack it; no rows where no stress is learned."""
    weight: Array
    """() float64: 1 / molecules of all replicas in this step; losses are sums times this."""
    molecule_weights: Array
    """(molecules,) float64: the loss of each molecule is multiplied by its weight."""


def make_dataset(
    store: GraphStore,
    targets: np.ndarray,
    batches: Callable[[], Iterator[np.ndarray]],
    num_replicas: int = 1,
    own: slice = slice(None),
    forces: np.ndarray | None = None,
    molecule_weights: np.ndarray | None = None,
    stress: np.ndarray | None = None,
) -> tf.data.Dataset:
    """Make a data set of `Batch`.

    Parameters
    ----------
    store : with all molecules
    targets : (molecules, targets) float64
    batches : called for a new iterator over arrays of molecules
    forces : (atoms of all molecules, 3) float64, where they are learned
    num_replicas : number of elements that every batch is divided into by molecules, one for each replica. No molecule
        is divided
    own : the replicas whose elements this data set has, for several workers; all by default
    molecule_weights : (molecules,) float64, 1 for all by default
    stress : (molecules, 3, 3) float64, where it is learned

    Examples
    --------
    >>> import numpy as np
    >>> from dimenet_tf.graph import GraphStore
    >>> from dimenet_tf.graph.pipeline import make_dataset
    >>> store = GraphStore([2, 1], [1, 1, 8], [[0, 0, 0], [0.74, 0, 0], [0, 0, 0]], cutoff=5.0)
    >>> batches = np.array([[0, 1], [1, 0]])
    >>> for batch in make_dataset(store, np.array([[-31.8], [-74.9]]), lambda: iter(batches)):
    ...     print(batch.graph.num_atoms.numpy(), batch.targets.numpy().tolist())
    [2 1] [[-31.8], [-74.9]]
    [1 2] [[-74.9], [-31.8]]
    """

    def elements() -> Iterator[Batch]:
        for molecules in batches():
            for part in np.array_split(molecules, num_replicas)[own]:
                yield Batch(
                    graph=store.batch(part),
                    targets=targets[part],
                    forces=np.empty((0, 3)) if forces is None else forces[store.atoms(part)],
                    stress=np.empty((0, 3, 3)) if stress is None else stress[part],
                    weight=np.float64(1 / len(molecules)),
                    molecule_weights=np.ones(len(part)) if molecule_weights is None else molecule_weights[part],
                )

    signature = Batch(
        graph=graph_signature(store.dtype, store.needs, store.cells is not None),
        targets=tf.TensorSpec([None, targets.shape[1]], tf.float64),
        forces=tf.TensorSpec([None, 3], tf.float64),
        stress=tf.TensorSpec([None, 3, 3], tf.float64),
        weight=tf.TensorSpec([], tf.float64),
        molecule_weights=tf.TensorSpec([None], tf.float64),
    )
    return tf.data.Dataset.from_generator(elements, output_signature=signature).prefetch(4)
