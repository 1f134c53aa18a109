"""`gather` and `segment_sum` with each other as gradients.

TensorFlow's own gradient of `unsorted_segment_sum` guards against negative segments, which graphs do not have, at the
cost of several passes over the messages; and its gradient of `gather` is a sum even where no row is taken twice.
"""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from dimenet_tf.graph import Graph


def segment_sum(x: tf.Tensor, segments: tf.Tensor, num_segments: tf.Tensor) -> tf.Tensor:
    """Sum rows by segment: (n, f) -> (num_segments, f); `segments` (n,) int32, none negative."""

    @tf.custom_gradient
    def total(x: tf.Tensor) -> tuple[tf.Tensor, Callable]:
        return tf.math.unsorted_segment_sum(x, segments, num_segments), lambda upstream: gather(upstream, segments)

    return total(x)


def gather(x: tf.Tensor, rows: tf.Tensor) -> tf.Tensor:
    """Take rows: (m, f) -> (n, f); `rows` (n,) int32."""
    size = tf.shape(x)[0]

    @tf.custom_gradient
    def taken(x: tf.Tensor) -> tuple[tf.Tensor, Callable]:
        return tf.gather(x, rows), lambda upstream: segment_sum(upstream, rows, size)

    return taken(x)


def rearrange(x: tf.Tensor, rows: tf.Tensor, back: tf.Tensor) -> tf.Tensor:
    """Take rows, each once: its gradient takes the rows `back`."""

    @tf.custom_gradient
    def taken(x: tf.Tensor) -> tuple[tf.Tensor, Callable]:
        return tf.gather(x, rows), lambda upstream: rearrange(upstream, back, rows)

    return taken(x)


def reverse_edges(x: tf.Tensor, edge_reverse: tf.Tensor) -> tf.Tensor:
    """Give every edge the row of its reverse: (edges, f) -> (edges, f)."""
    return rearrange(x, edge_reverse, edge_reverse)


class NeighborSlots:
    """Features of edges as padded arrays: row j, slot a is the a-th edge that goes to atom j.

    Parameters
    ----------
    graph : with `atom_edges`
    """

    def __init__(self, graph: Graph) -> None:
        self.used = tf.greater_equal(graph.atom_edges, 0)  # (atoms, k)
        self.edges = tf.maximum(graph.atom_edges, 0)  # (atoms, k), what the slots show
        self.shape = tf.shape(graph.atom_edges)
        self._edge_of_slot = tf.reshape(self.edges, [-1])
        # edges are sorted by target, so slot a of atom j holds the a-th edge of its own: no shape depends on values
        counts = tf.reduce_sum(tf.cast(self.used, tf.int32), axis=1)
        first = tf.cumsum(counts, exclusive=True)  # edge of every atom
        place = tf.range(tf.shape(graph.edge_target)[0]) - tf.gather(first, graph.edge_target)
        self._slot_of_edge = graph.edge_target * self.shape[1] + place

    def pad(self, x: tf.Tensor) -> tf.Tensor:
        """(edges, f) -> (atoms, k, f). Unused slots show edge 0: what is made of them must be multiplied by zero."""
        padded = rearrange(x, self._edge_of_slot, self._slot_of_edge)
        return tf.reshape(padded, tf.concat([self.shape, x.shape[1:]], axis=0))

    def unpad(self, x: tf.Tensor) -> tf.Tensor:
        """(atoms, k, f) -> (edges, f). Gradients of unused slots are those of edge 0; see `pad`."""
        flat = tf.reshape(x, tf.concat([[-1], x.shape[2:]], axis=0))
        return rearrange(flat, self._slot_of_edge, self._edge_of_slot)
