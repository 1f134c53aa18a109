"""Sums over the neighbors k of j except i, computed in several ways with the same results.

The sums themselves have no weights except a kernel that the model passes. Each way is a class. A model makes an object
of it once per call, and all interaction blocks use the object:

    pairs = AGGREGATIONS["sum_first"](graph, angle="interior")
    y = pairs.angular(vectors, basis)          # angles, in the form that this way needs
    pairs.sum_outer(y, x, radial)              # sum_k c_b x_f     -> (edges, b, f)
    pairs.sum_product(y, x, radial, kernel)    # sum_k (c W)_f x_f -> (edges, f)

with messages x_kj (edges, f), projected radial basis G (edges, num_spherical, b; see `BasisProjection`) and
c_b(kj, ji) = sum_l Y_l0(angle) G_lb. Results belong to the edges ji.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Union

import numpy as np
import tensorflow as tf

from dimenet_tf.basis import SphericalBasis
from dimenet_tf.errors import UserError, check_choice
from dimenet_tf.graph import Graph
from dimenet_tf.layers.gathers import NeighborSlots, gather, reverse_edges, segment_sum
from dimenet_tf.layers.geometry import cos_angle, unit_vectors


class Triplets:
    """Sums over a list of triplets: gather, multiply, sum. Memory grows as edges x neighbors x features.

    Parameters
    ----------
    graph : with `triplet_kj` and `triplet_ji`
    angle : a key of `ANGLES`
    radial_edge : "kj" or "ji", the edge whose distance G belongs to: the source of messages or their destination
    updates : "ji" (DimeNet), or "ij": sums belong to the edges i -> j, which end where k -> j ends (GemNet)
    """

    needs = frozenset({"triplets"})

    def __init__(self, graph: Graph, angle: str, radial_edge: str = "kj", updates: str = "ji") -> None:
        self.angle = angle
        self.kj, self.ji = graph.triplet_kj, graph.triplet_ji
        self.taking = self.ji if updates == "ji" else tf.gather(graph.edge_reverse, self.ji)
        self.radial_index = self.kj if radial_edge == "kj" else self.taking
        self.num_edges = tf.shape(graph.edge_source)[0]

    def angular(self, vectors: tf.Tensor, basis: SphericalBasis) -> tf.Tensor:
        """Return Y_l0 of the angles, (edges, 3) target to source -> (triplets, num_spherical)."""
        return basis.angular(cos_angle(self.angle, gather(vectors, self.kj), gather(vectors, self.ji)))

    def _coefficients(self, y: tf.Tensor, radial: tf.Tensor) -> tf.Tensor:
        g = gather(radial, self.radial_index)  # (triplets, l, b)
        return tf.squeeze(y[:, None] @ g, axis=1)  # (triplets, b)

    def sum_outer(self, y: tf.Tensor, x: tf.Tensor, radial: tf.Tensor) -> tf.Tensor:
        c = self._coefficients(y, radial)
        outer = c[:, :, None] * gather(x, self.kj)[:, None]  # (triplets, b, f)
        return segment_sum(outer, self.taking, self.num_edges)

    def sum_product(self, y: tf.Tensor, x: tf.Tensor, radial: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        product = (self._coefficients(y, radial) @ kernel) * gather(x, self.kj)  # (triplets, f)
        return segment_sum(product, self.taking, self.num_edges)

    @staticmethod
    def stored_by_outer(neighbors: float, units: int, features: int, num_spherical: int) -> float:
        """Estimate the numbers per edge that `sum_outer` stores for the backward pass."""
        return 0.7 * neighbors * units * features

    @staticmethod
    def stored_by_product(neighbors: float, units: int, features: int, num_spherical: int) -> float:
        """Estimate the numbers per edge that `sum_product` stores for the backward pass."""
        return 4 * neighbors * features


class OverSlots:
    """Base class of the ways without triplets: row j of padded arrays belongs to the edges that go to atom j.

    Parameters are those of `Triplets`. The graph needs `atom_edges`.
    """

    needs = frozenset({"atom_edges"})

    def __init__(self, graph: Graph, angle: str, radial_edge: str = "kj", updates: str = "ji") -> None:
        self.angle, self.radial_edge, self.updates = angle, radial_edge, updates
        self.slots = NeighborSlots(graph)
        self._reverse = graph.edge_reverse

    def turned(self, x: tf.Tensor) -> tf.Tensor:
        """Convert rows of the edges that receive sums to rows of the edges i -> j, which are used here, or back."""
        return reverse_edges(x, self._reverse) if self.updates == "ji" else x


class SumFirst(OverSlots):
    """Sum over k before learned factors are applied (GemNet, App. C): matrix products over padded neighbors.

    A pair of slots (a, b) of atom j stands for the edges k -> j in slot a and j -> i, whose reverse is in slot b.
    """

    def angular(self, vectors: tf.Tensor, basis: SphericalBasis) -> tf.Tensor:
        """Return Y_l0 of the angles, (edges, 3) target to source -> (atoms, k_kj, k_ji, num_spherical), or zero."""
        incoming = self.slots.pad(vectors)  # (atoms, k, 3)
        cosine = cos_angle(self.angle, v_kj=incoming[:, :, None], v_ji=-incoming[:, None])  # (atoms, k_kj, k_ji)
        return basis.angular(cosine) * tf.cast(self.is_pair(), cosine.dtype)[..., None]

    def is_pair(self) -> tf.Tensor:
        """Return whether both slots are used and k is not i, (atoms, k_kj, k_ji) bool."""
        used = self.slots.used
        return used[:, :, None] & used[:, None] & ~tf.eye(tf.shape(used)[1], dtype=tf.bool)

    def _coefficients(self, y: tf.Tensor, radial: tf.Tensor) -> tf.Tensor:
        """Return c_b from the projected radial basis, (edges, l, b) -> (atoms, k_kj, k_ji * b)."""
        if self.radial_edge == "kj":
            c = y @ self.slots.pad(radial)  # (atoms, k_kj, k_ji, b)
        else:
            outgoing = self.slots.pad(self.turned(radial))  # (atoms, k_ji, l, b)
            c = tf.transpose(tf.transpose(y, [0, 2, 1, 3]) @ outgoing, [0, 2, 1, 3])
        atoms, k_kj, k_ji, b = tf.unstack(tf.shape(c))
        return tf.reshape(c, [atoms, k_kj, k_ji * b])

    def sum_outer(self, y: tf.Tensor, x: tf.Tensor, radial: tf.Tensor) -> tf.Tensor:
        units, features = radial.shape[2], x.shape[1]
        total = self.slots.unpad(self._totals(y, x, radial, [units * features]))  # (edges, b * f)
        return tf.reshape(self.turned(total), [-1, units, features])

    def sum_product(self, y: tf.Tensor, x: tf.Tensor, radial: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        totals = self._totals(y, x, radial, kernel.shape)  # (atoms, k_ji, b, f)
        return self.turned(self.slots.unpad(tf.reduce_sum(totals * kernel, axis=2)))

    @staticmethod
    def stored_by_outer(neighbors: float, units: int, features: int, num_spherical: int) -> float:
        """Estimate the numbers per edge that `sum_outer` stores for the backward pass."""
        return 3 * neighbors * units + 3 * units * features

    stored_by_product = stored_by_outer

    def _totals(self, y: tf.Tensor, x: tf.Tensor, radial: tf.Tensor, shape: Sequence[int]) -> tf.Tensor:
        """Return the sums for the edges i -> j at their slots."""
        total = tf.matmul(self._coefficients(y, radial), self.slots.pad(x), transpose_a=True)  # (atoms, k_ji * b, f)
        return tf.reshape(total, tf.concat([self.slots.shape, shape], axis=0))


class Harmonics(OverSlots):
    """Sum over k without pairs of edges, by the addition theorem of spherical harmonics.

    P_l(u.v) = 4 pi/(2l+1) sum_m Y_lm(u) Y_lm(v). So, with the part A_l of the messages that belongs to degree l,

    sum_k Y_l0(angle) A_l[kj] = sqrt(4 pi/(2l+1)) sum_m Y_lm(u_ij) S_lm[j],  S_lm[j] = sum_k Y_lm(u_kj) A_l[kj]

    and time and memory are linear in the number of edges. S includes k = i, which is subtracted afterwards. All sums
    are computed for the edges i -> j that go to j, and the last step reorders them for their reverses j -> i. The angle
    must be the one at j, between u_kj and u_ij, or its supplement, which changes the sign of odd l.
    """

    def angular(self, vectors: tf.Tensor, basis: SphericalBasis) -> tf.Tensor:
        """Return Y_lm of the edges, (edges, 3) target to source -> (atoms, k, num_spherical^2), zero where unused."""
        harmonics = self.slots.pad(basis.harmonics(unit_vectors(vectors)))
        return harmonics * tf.cast(self.slots.used, vectors.dtype)[..., None]

    def sum_outer(self, y: tf.Tensor, x: tf.Tensor, radial: tf.Tensor) -> tf.Tensor:
        units, features = radial.shape[2], x.shape[1]
        total = self._sum(y, x, radial, lambda g, x: tf.reshape(g[:, :, None] * x[:, None], [-1, units * features]))
        return tf.reshape(total, [-1, units, features])

    def sum_product(self, y: tf.Tensor, x: tf.Tensor, radial: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        return self._sum(y, x, radial, lambda g, x: (g @ kernel) * x)

    @staticmethod
    def stored_by_outer(neighbors: float, units: int, features: int, num_spherical: int) -> float:
        """Estimate the numbers per edge that `sum_outer` stores for the backward pass."""
        return 3 * num_spherical * units * features

    @staticmethod
    def stored_by_product(neighbors: float, units: int, features: int, num_spherical: int) -> float:
        """Estimate the numbers per edge that `sum_product` stores for the backward pass."""
        return 3 * num_spherical * features

    def _sum(self, y: tf.Tensor, x: tf.Tensor, radial: tf.Tensor, times: Callable) -> tf.Tensor:
        """Sum over k of `times(G_l, x)`, a product that is linear in both its factors, (edges, F)."""
        if self.radial_edge == "ji":
            radial = self.turned(radial)  # in the rows of the edges i -> j
        degree = np.arange(radial.shape[1])
        orders = 2 * degree + 1
        sign = np.where(self.angle == "supplement", -1.0, 1.0) ** degree
        factors = tf.constant(sign * np.sqrt(4 * np.pi / orders), radial.dtype)
        degrees = tf.unstack(radial * factors[:, None], axis=1)  # (edges, b) each
        if self.radial_edge == "kj":
            sums = [
                tf.matmul(y_l, self.slots.pad(times(g, x)), transpose_a=True)  # (atoms, 2l+1, F)
                for y_l, g in zip(tf.split(y, orders, axis=2), degrees)
            ]
            total = self.slots.unpad(y @ tf.concat(sums, axis=1))
        else:
            sums = tf.split(tf.matmul(y, self.slots.pad(x), transpose_a=True), orders, axis=1)
            shares = zip(tf.split(y, orders, axis=2), sums, degrees)
            total = tf.add_n([times(g, self.slots.unpad(y_l @ s)) for y_l, s, g in shares])
        own = times(tf.add_n([n / (4 * np.pi) * g for n, g in zip(orders.tolist(), degrees)]), x)  # k = i
        return self.turned(total - own)


Aggregation = Union[Triplets, SumFirst, Harmonics]
AGGREGATIONS: dict[str, type[Aggregation]] = {"triplets": Triplets, "sum_first": SumFirst, "harmonics": Harmonics}


AGGREGATION_OPTIONS = ("auto", *AGGREGATIONS)


def choose_aggregation(name: str, angle: str, best: str) -> type[Aggregation]:
    """Return the class of an `aggregation` option; `auto` selects `best`."""
    check_choice("aggregation", name, AGGREGATION_OPTIONS)
    name = best if name == "auto" else name
    if name == "harmonics" and angle == "at_target":
        raise UserError(
            "aggregation = 'harmonics' needs the angle at the shared atom; DimeNet has it with "
            "conventions = 'corrected'",
            "aggregation",
        )
    return AGGREGATIONS[name]
