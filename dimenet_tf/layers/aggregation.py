"""Sums over the neighbors k of j that are not i: exact ways of computing the same numbers.

All model-specific learning happens before and after these sums. Each way is a class that is made once per call of a
model, from the graph and its geometry, and then serves all interaction blocks:

    pairs = AGGREGATIONS["sum_first"](graph, vectors, basis.angular, angle="interior")
    pairs.sum_outer(x, radial)              # sum_k c_b x_f     -> (edges, b, f)
    pairs.sum_product(x, radial, kernel)    # sum_k (c W)_f x_f -> (edges, f)

with messages x_kj (edges, f), projected radial basis G (edges, num_spherical, b; see `BasisProjection`) and
c_b(kj, ji) = sum_l Y_l0(angle) G_lb. Results belong to the edges ji.
"""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from dimenet_tf.graph import Graph
from dimenet_tf.layers.geometry import cos_angle


class Triplets:
    """The textbook way: gather to triplets, multiply, sum onto edges. Memory grows as edges x neighbors x features.

    Parameters
    ----------
    graph : with `triplet_kj` and `triplet_ji`
    vectors : (edges, 3), target to source
    angular : (...) cosines -> (..., num_spherical)
    angle : which angle, a key of `ANGLES`
    radial_edge : "kj" or "ji", the edge whose distance G belongs to
    """

    needs = frozenset({"triplets"})

    def __init__(
        self,
        graph: Graph,
        vectors: tf.Tensor,
        angular: Callable[[tf.Tensor], tf.Tensor],
        angle: str,
        radial_edge: str = "kj",
    ) -> None:
        self.kj, self.ji = graph.triplet_kj, graph.triplet_ji
        self.radial_index = self.kj if radial_edge == "kj" else self.ji
        self.num_edges = tf.shape(vectors)[0]
        self.y = angular(cos_angle(angle, tf.gather(vectors, self.kj), tf.gather(vectors, self.ji)))  # (triplets, l)

    def _coefficients(self, radial: tf.Tensor) -> tf.Tensor:
        g = tf.gather(radial, self.radial_index)  # (triplets, l, b)
        return tf.squeeze(self.y[:, None] @ g, axis=1)  # (triplets, b)

    def sum_outer(self, x: tf.Tensor, radial: tf.Tensor) -> tf.Tensor:
        c = self._coefficients(radial)
        outer = c[:, :, None] * tf.gather(x, self.kj)[:, None]  # (triplets, b, f)
        return tf.math.unsorted_segment_sum(outer, self.ji, self.num_edges)

    def sum_product(self, x: tf.Tensor, radial: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        product = (self._coefficients(radial) @ kernel) * tf.gather(x, self.kj)  # (triplets, f)
        return tf.math.unsorted_segment_sum(product, self.ji, self.num_edges)


class SumFirst:
    """Sum over k before anything learned is applied (GemNet, App. C): matrix products over padded neighbors.

    Row j of the padded arrays holds the edges that go to atom j. A pair of slots (a, b) stands for the edges k -> j in
    slot a and j -> i, the reverse of the edge in slot b. Parameters as `Triplets`; the graph needs `atom_edges`.
    """

    needs = frozenset({"atom_edges"})

    def __init__(
        self,
        graph: Graph,
        vectors: tf.Tensor,
        angular: Callable[[tf.Tensor], tf.Tensor],
        angle: str,
        radial_edge: str = "kj",
    ) -> None:
        used = graph.atom_edges >= 0  # (atoms, k)
        self.slots = tf.maximum(graph.atom_edges, 0)  # an unused slot shows edge 0 and is multiplied by zero
        self.reverse = graph.edge_reverse
        self.radial_edge = radial_edge
        # edges are sorted by target, so the used slots, row by row, are the edges in order
        slot_of_edge = tf.where(tf.reshape(used, [tf.size(used)]))[:, 0]
        self.slot_of_reverse = tf.gather(slot_of_edge, graph.edge_reverse)

        incoming = tf.gather(vectors, self.slots)  # (atoms, k, 3)
        cosine = cos_angle(angle, v_kj=incoming[:, :, None], v_ji=-incoming[:, None])  # (atoms, k_kj, k_ji)
        pair = used[:, :, None] & used[:, None] & ~tf.eye(tf.shape(used)[1], dtype=tf.bool)  # k = i is no pair
        self.y = angular(cosine) * tf.cast(pair, cosine.dtype)[..., None]  # (atoms, k_kj, k_ji, l)

    def _coefficients(self, radial: tf.Tensor) -> tf.Tensor:
        """(edges, l, b) -> (atoms, k_kj, k_ji * b)."""
        if self.radial_edge == "kj":
            c = self.y @ tf.gather(radial, self.slots)  # (atoms, k_kj, k_ji, b)
        else:
            outgoing = tf.gather(tf.gather(radial, self.reverse), self.slots)  # (atoms, k_ji, l, b)
            c = tf.transpose(tf.transpose(self.y, [0, 2, 1, 3]) @ outgoing, [0, 2, 1, 3])
        atoms, k_kj, k_ji, b = tf.unstack(tf.shape(c))
        return tf.reshape(c, [atoms, k_kj, k_ji * b])

    def sum_outer(self, x: tf.Tensor, radial: tf.Tensor) -> tf.Tensor:
        padded = tf.gather(x, self.slots)  # (atoms, k_kj, f)
        total = tf.matmul(self._coefficients(radial), padded, transpose_a=True)  # (atoms, k_ji * b, f)
        units, features = radial.shape[2], x.shape[1]
        total = tf.reshape(total, [tf.size(self.slots), units, features])
        return tf.gather(total, self.slot_of_reverse)

    def sum_product(self, x: tf.Tensor, radial: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        return tf.reduce_sum(self.sum_outer(x, radial) * kernel, axis=1)


AGGREGATIONS = {"triplets": Triplets, "sum_first": SumFirst}


def choose_aggregation(name: str) -> type[Triplets] | type[SumFirst]:
    """Return the class of an `aggregation` option; `auto` is `sum_first`, the faster one wherever it was measured."""
    if name == "auto":
        return SumFirst
    if name not in AGGREGATIONS:
        raise ValueError(f"aggregation: '{name}' is none of {', '.join(['auto', *AGGREGATIONS])}")
    return AGGREGATIONS[name]
