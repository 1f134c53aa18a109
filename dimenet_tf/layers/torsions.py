"""Sums over the neighbors k of j that are not i, weighted by distance, angle and torsion: spherical message passing."""

from __future__ import annotations

import math

import numpy as np
import tensorflow as tf

from dimenet_tf.basis import SphericalBasis
from dimenet_tf.basis.formulas import azimuthal_factors, by_harmonic, circular_powers, orders, polar_factors
from dimenet_tf.graph import Graph
from dimenet_tf.layers.aggregation import SumFirst
from dimenet_tf.layers.gathers import gather, segment_sum
from dimenet_tf.layers.geometry import perpendicular_frame, safe_norm, unit_vectors
from dimenet_tf.layers.quadruplets import STRAIGHT, fade_in

JUMPS = (
    "model.torsion: published makes energies jump where neighbors change their order; "
    "for forces and dynamics train with model.torsion=smooth"
)
COPLANAR = 1e-4  # radians; rounding in float32 stays below it


def kept_harmonics(num_spherical: int, torsion: str) -> np.ndarray:
    """Return the harmonics that a torsion has, as indices in the order of `dimenet_tf.basis.formulas.orders`, (h,) int.

    The smooth torsion has no sines, only m >= 0.
    """
    order = orders(num_spherical)
    return np.flatnonzero(order >= num_spherical - 1) if torsion == "smooth" else np.arange(len(order))


class SphericalSums(SumFirst):
    """Sums over pairs of edges k -> j -> i, with the basis functions that all interaction blocks share.

    Matrix products run over all pairs of padded slots. Large elementwise operations (harmonics, gated messages) run
    over a list of the existing pairs, which are half as many where molecules differ in size.

    Around the axis j -> i every neighbor has a place x + iy = sin(theta) exp(i azimuth), which two scalar products with
    a frame perpendicular to the axis give. The torsion basis of k needs cosines and sines of differences of azimuths,
    which are products of such numbers. No angle is differentiated, so nothing is singular where k, j and i are in line.

    Parameters
    ----------
    graph : with `atom_edges`
    vectors : (edges, 3) from each edge's target to its source
    basis : SphericalBasis
    torsion : "next", "previous", "smooth" or "none"
        See `next_neighbors` and `smooth_torsions`. With "none" there are no harmonics.

    Attributes
    ----------
    zonal : (atoms, k, i, num_spherical)
        Y_l0, zero where there is no pair.
    harmonics : (atoms, k, i, num_harmonics)
        Y_lm of the angle and the torsion, zero where there is no pair.
    """

    def __init__(self, graph: Graph, vectors: tf.Tensor, basis: SphericalBasis, torsion: str) -> None:
        super().__init__(graph, "interior")
        self._list_pairs(graph)
        self.zonal = self.angular(vectors, basis)
        if torsion != "none":
            self.harmonics = self._in_slots(self._harmonics(vectors, basis, torsion))

    def _list_pairs(self, graph: Graph) -> None:
        """Store the index of every existing pair among all pairs of slots, and its two edges."""
        j, kj, ij = tf.unstack(tf.cast(tf.where(self.is_pair()), tf.int32), axis=1)
        self._place = (j * self.slots.shape[1] + kj) * self.slots.shape[1] + ij
        self._kj, ij = (tf.gather_nd(self.slots.edges, tf.stack([j, slot], axis=1)) for slot in (kj, ij))
        self._ji = tf.gather(graph.edge_reverse, ij)
        self._num_edges = tf.shape(graph.edge_source)[0]

    def _harmonics(self, vectors: tf.Tensor, basis: SphericalBasis, torsion: str) -> tf.Tensor:
        """Return Y_lm of the angle and the torsion of every pair, (pairs, num_harmonics)."""
        num_spherical = basis.num_spherical
        neighbors = self.slots.pad(unit_vectors(vectors))  # (atoms, k, 3)
        first, second = perpendicular_frame(neighbors)  # of the axes j -> i, (atoms, i, 3)
        x, y, z = (tf.matmul(neighbors, axis, transpose_b=True) for axis in (first, second, neighbors))  # (atoms, k, i)
        polar, order = polar_factors(num_spherical, self._of_pairs(z)), orders(num_spherical)
        if torsion == "smooth":
            even = kept_harmonics(num_spherical, torsion)
            weights = tf.cast(self.slots.used, z.dtype) * self._weights(vectors, basis)
            around = self._of_pairs(smooth_torsions(num_spherical, x, y, weights))
            polar, order = by_harmonic(polar, even), order[even] - num_spherical + 1
        else:
            cosine, sine = next_neighbors(x, y, self.slots.used, backwards=torsion == "previous")
            around = azimuthal_factors(num_spherical, self._of_pairs(cosine), self._of_pairs(sine), axis=-1)
        return polar * by_harmonic(around, order)

    def _of_pairs(self, x: tf.Tensor) -> tf.Tensor:
        """Gather the existing pairs, (atoms, k, i, ...) -> (pairs, ...)."""
        return gather(tf.reshape(x, tf.concat([[-1], x.shape[3:]], axis=0)), self._place)

    def _in_slots(self, x: tf.Tensor) -> tf.Tensor:
        """Scatter pairs to their slots, (pairs, h) -> (atoms, k, i, h), zero where there is no pair."""
        atoms, slots = tf.unstack(self.slots.shape)
        return tf.reshape(segment_sum(x, self._place, atoms * slots**2), [atoms, slots, slots, x.shape[1]])

    def _weights(self, vectors: tf.Tensor, basis: SphericalBasis) -> tf.Tensor:
        """Return the envelope of every neighbor's distance, (atoms, k)."""
        return self.slots.pad(basis.envelope(safe_norm(vectors) / basis.cutoff))

    def sum_gated(self, x: tf.Tensor, gates: list[tuple[tf.Tensor, tf.Tensor, tf.Tensor]]) -> tf.Tensor:
        """Return sum_k x_kj prod_g (Y_g G_g W_g) over gates g of angle and torsion, for the edges j -> i, (edges, f).

        Parameters
        ----------
        x : (edges, f), messages
        gates : for each gate, harmonics (atoms, k, i, h), projected radial part (edges, h, b) and kernel (b, f)
        """
        product = gather(x, self._kj)  # (pairs, f)
        for y, radial, kernel in gates:
            product *= self._of_pairs(tf.matmul(y, self.slots.pad(radial))) @ kernel
        return segment_sum(product, self._ji, self._num_edges)

    def sum_bilinear(
        self, x: tf.Tensor, gate: tuple[tf.Tensor, tf.Tensor, tf.Tensor], radial: tf.Tensor, bilinear: tf.Tensor
    ) -> tf.Tensor:
        """Return sum_k sum_b (Y_lm G)_b W_b ((Y_l0 G W) * x_kj) for the edges j -> i, (edges, units).

        The angle is a gate, and a bilinear layer combines the gated messages with the torsion. Messages are summed over
        k before the bilinear layer is applied, which computes in the dtype of its weights.

        Parameters
        ----------
        x : (edges, f), messages
        gate : as in `sum_gated`
        radial : (edges, num_harmonics, b), projected radial part of `harmonics`
        bilinear : (units, b, f)
        """
        y, gate_radial, kernel = gate
        # both factors are transposed while they are smaller than messages
        coefficients = tf.transpose(tf.matmul(y, self.slots.pad(gate_radial)), [0, 2, 1, 3])  # (atoms, i, k, c)
        messages = (coefficients @ kernel) * self.slots.pad(x)[:, None]  # (atoms, i, k, f)
        c = tf.transpose(tf.matmul(self.harmonics, self.slots.pad(radial)), [0, 2, 3, 1])  # (atoms, i, b, k)
        units, b, f = bilinear.shape
        total = tf.cast(tf.reshape(tf.matmul(c, messages), [-1, b * f]), bilinear.dtype)
        total = tf.matmul(total, tf.reshape(bilinear, [units, b * f]), transpose_b=True)
        total = tf.reshape(tf.cast(total, x.dtype), tf.concat([self.slots.shape, [units]], axis=0))
        return self.turned(self.slots.unpad(total))


def next_neighbors(x: tf.Tensor, y: tf.Tensor, used: tf.Tensor, backwards: bool) -> tuple[tf.Tensor, tf.Tensor]:
    """Return sin(theta_k) times cosine and sine of the torsion of k about the axis j -> i, (atoms, k, i) each.

    The torsion is measured anticlockwise from k to the next neighbor q, which is the rule of the released SphereNet.
    Backwards, it is measured from the neighbor q before k to k, as in the paper's Fig. 4. Either way the torsions of
    all k about an axis add up to 2 pi.

    Rounding would decide some cases of this rule, so they are defined here. A neighbor q in the same half-plane as k,
    or k itself, is a full turn away; without another neighbor the torsion is 2 pi. If several neighbors in one
    half-plane are next, their mean is used. A neighbor q in line with the axis (`STRAIGHT`) has no half-plane and is
    skipped; for such a k both numbers fade out.

    Parameters
    ----------
    x, y : (atoms, k, i), place of k around the axis j -> i
    used : (atoms, k), whether there is a neighbor in the slot
    backwards : bool
    """
    place = tf.transpose(tf.stack([x, y], axis=-1), [0, 2, 1, 3])  # (atoms, i, k, 2)
    azimuth = tf.stop_gradient(tf.atan2(place[..., 1], place[..., 0]))
    azimuth = -azimuth if backwards else azimuth
    turn = azimuth[:, :, None] - azimuth[..., None]  # (atoms, i, k, q)
    turn = tf.where(turn < 0, turn + 2 * math.pi, turn)
    bent = tf.reduce_sum(place * place, axis=-1) > STRAIGHT**2  # false for q = i, which is on the axis
    other = (used[:, None] & bent)[:, :, None] & (turn > COPLANAR) & (turn < 2 * math.pi - COPLANAR)
    turn = tf.where(other, turn, 2 * math.pi)
    nearest = other & (turn <= tf.reduce_min(turn, axis=-1, keepdims=True) + COPLANAR)
    alone = ~tf.reduce_any(nearest, axis=-1, keepdims=True)
    chosen = tf.cast(nearest | (alone & tf.eye(tf.shape(turn)[-1], dtype=tf.bool)), x.dtype)
    chosen /= tf.reduce_sum(chosen, axis=-1, keepdims=True)
    direction = tf.matmul(chosen, unit_vectors(place)) * fade_in(place)  # of q, (atoms, i, k, 2)
    cosine = tf.reduce_sum(place * direction, axis=-1)
    sine = place[..., 0] * direction[..., 1] - place[..., 1] * direction[..., 0]
    cosine, sine = tf.transpose(cosine, [0, 2, 1]), tf.transpose(sine, [0, 2, 1])
    return cosine, -sine if backwards else sine


def smooth_torsions(num_spherical: int, x: tf.Tensor, y: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
    """Return the mean over all q of sin(theta_k)^m cos(m torsion_kq), m = 0, 1, ..., (atoms, k, i, num_spherical).

    For m > 0 it is sum_q w_q sin(theta_q)^m sin(theta_k)^m cos(m torsion_kq) / (1 + sum_q w_q), where q runs over all
    neighbors of j except i and k. Weights w_q are envelopes of the distances, so neighbors enter and leave smoothly.
    The factor sin(theta_q)^m reduces the weight of neighbors near the axis, whose half-plane is poorly defined, and
    makes every term a polynomial in the places x + iy. The 1 stands for a neighbor on the axis: without any other q the
    mean is zero. Sines of torsions are left out, because a mirror image changes their sign.

    The sum over q is Re(conj(c_k) sum_q w_q c_q) with c = (x + iy)^m: one sum serves all k.

    Parameters
    ----------
    x, y : (atoms, k, i), place of k around the axis j -> i
    weights : (atoms, k), zero in unused slots
    """
    w = weights[:, :, None]  # (atoms, k, 1)

    def with_others(part: tf.Tensor) -> tf.Tensor:
        """Multiply the part of each k by the weighted sum of all others, (atoms, k, i, num_spherical)."""
        weighted = w[..., None] * part
        return part * (tf.reduce_sum(weighted, axis=1, keepdims=True) - weighted)

    cosines, sines = circular_powers(num_spherical, x, y)  # of m = 0, 1, ...
    product = with_others(tf.stack(cosines, axis=-1)) + with_others(tf.stack(sines, axis=-1))
    rest = tf.reduce_sum(w, axis=1, keepdims=True) - w - tf.transpose(w, [0, 2, 1])  # q is neither k nor i
    # k = i is not a pair, so its value only has to be finite
    mean = product / (tf.maximum(rest, 0)[..., None] + 1)
    return tf.concat([tf.ones_like(mean[..., :1]), mean[..., 1:]], axis=-1)
