"""Paths c -> a ... b <- d of two edges whose targets are near each other: GemNet's two-hop message passing."""

from __future__ import annotations

import tensorflow as tf

from dimenet_tf.basis.formulas import azimuthal_factors, orders, polar_factors, zonal_harmonics
from dimenet_tf.graph import Graph
from dimenet_tf.layers.gathers import NeighborSlots, gather
from dimenet_tf.layers.geometry import far_vectors, safe_norm, unit_vectors

STRAIGHT = 0.01  # sine of an angle, about half a degree


def fade_in(across: tf.Tensor) -> tf.Tensor:
    """Return 1 for vectors (..., n) longer than `STRAIGHT`, falling smoothly to 0 for shorter ones, (..., 1)."""
    t = tf.minimum(tf.reduce_sum(across * across, axis=-1, keepdims=True) / STRAIGHT**2, 1)
    return t * t * t * (10 - 15 * t + 6 * t * t)  # value and two derivatives match the constants 0 and 1 at the ends


class Quadruplets:
    """All paths c -> a ... b <- d with c != b, d != a and c != d, where a and b are a pair of far edges, at most
    the interaction cutoff apart.

    Quadruplets are not listed. Rows of padded arrays belong to atoms a, with axes for the edges c -> a, the atoms b and
    the edges d -> b. In a periodic structure a, b, c and d are images of atoms.

    The direction of c as seen from a, in a frame whose axis points to b and whose half-plane holds d, is
    (sin theta cos phi, sin theta |sin phi|, cos theta) with the angle theta = c-a-b and the dihedral 0 <= phi <= pi.
    Its components are scalar products. No angle is computed, so nothing is singular where c, a, b are in line. Where
    a, b, d are in line, the half-plane is undefined, so the published function jumps and its direction is a rounding
    error. Here the components in the half-plane fade out within half a degree of the straight line.

    Parameters
    ----------
    graph : with `atom_edges`, `far_table` and far edges up to the interaction cutoff
    vectors : (edges, 3) from each edge's target to its source
    num_spherical : int
    """

    def __init__(self, graph: Graph, vectors: tf.Tensor, num_spherical: int) -> None:
        self.num_spherical = num_spherical
        self.slots = NeighborSlots(graph)
        far = tf.maximum(graph.far_table, 0)  # (a, b), unused slots show pair 0
        self.b = tf.gather(graph.far_source, far)  # (a, b)
        self.shape = tf.concat([tf.shape(far), [tf.shape(graph.atom_edges)[1]]], axis=0)  # of (a, b, d)

        to_neighbors = self.slots.pad(unit_vectors(vectors))  # (a, c, 3)
        to_b = tf.reshape(gather(far_vectors(graph), tf.reshape(far, [-1])), [self.shape[0], self.shape[1], 3])
        axis = unit_vectors(to_b)
        to_d = self._of_b(to_neighbors)  # (a, b, d, 3)
        along = tf.reduce_sum(to_d * axis[:, :, None], axis=-1)  # (a, b, d): minus the cosine of the angle a-b-d
        self.distance_ab = safe_norm(to_b)  # (a, b)
        self.angular_abd = zonal_harmonics(num_spherical, -along)  # (a, b, d, num_spherical)

        across = to_d - along[..., None] * axis[:, :, None]
        half_plane = unit_vectors(across) * fade_in(across)  # (a, b, d, 3)
        normal = tf.linalg.cross(half_plane, tf.broadcast_to(axis[:, :, None], tf.shape(half_plane)))
        x = self._times(to_neighbors, half_plane)  # (a, c, b * d)
        y = tf.abs(self._times(to_neighbors, normal))
        z = tf.matmul(to_neighbors, axis, transpose_b=True)  # (a, c, b)
        self._set_masks(graph, far, z.dtype)
        polar = polar_factors(num_spherical, z) * self.mask_cab[..., None]  # (a, c, b, num_spherical^2)
        azimuthal = azimuthal_factors(num_spherical, x, y, axis=2) * self.mask_cd[:, :, None]  # (a, c, m, b * d)
        polar = tf.repeat(tf.transpose(polar, [0, 1, 3, 2]), self.shape[2], axis=3)
        self.y = polar * tf.gather(azimuthal, orders(num_spherical), axis=2)  # (a, c, num_spherical^2, b * d)

    def _of_b(self, x: tf.Tensor) -> tf.Tensor:
        """Gather values of the atoms b, (atoms, ...) -> (a, b, ...)."""
        taken = gather(x, tf.reshape(self.b, [-1]))
        return tf.reshape(taken, tf.concat([tf.shape(self.b), tf.shape(x)[1:]], axis=0))

    def _times(self, to_c: tf.Tensor, vectors: tf.Tensor) -> tf.Tensor:
        """Return scalar products, (a, c, 3) and (a, b, d, 3) -> (a, c, b * d)."""
        flat = tf.reshape(vectors, [self.shape[0], self.shape[1] * self.shape[2], 3])
        return tf.matmul(to_c, flat, transpose_b=True)

    def _set_masks(self, graph: Graph, far: tf.Tensor, dtype: tf.DType) -> None:
        """Set masks of existing c and b (a, c, b), existing b and d (a, b, d), and c other than d (a, c, b * d)."""
        edges, used = self.slots.edges, self.slots.used  # (a, c)
        atoms, pairs, slots = tf.unstack(self.shape)
        c, b = tf.gather(graph.edge_source, edges), self.b  # (a, c), (a, b)
        d, used_d = tf.gather(c, b), tf.gather(used, b)  # (a, b, d)
        c_is_b = c[:, :, None] == b[:, None]
        d_is_a = d == tf.range(atoms)[:, None, None]
        c_is_d = c[:, :, None] == tf.reshape(d, [atoms, 1, pairs * slots])
        if graph.is_periodic:  # the same atom in another image is another neighbor
            image_c = tf.gather(graph.edge_image, edges)  # (a, c, 3)
            image_b = tf.gather(graph.far_image, far)  # (a, b, 3)
            image_d = tf.gather(image_c, b) + image_b[:, :, None]  # (a, b, d, 3)
            c_is_b &= tf.reduce_all(image_c[:, :, None] == image_b[:, None], axis=-1)
            d_is_a &= tf.reduce_all(image_d == 0, axis=-1)
            flat = tf.reshape(image_d, [atoms, 1, pairs * slots, 3])
            c_is_d &= tf.reduce_all(image_c[:, :, None] == flat, axis=-1)
        cab = used[:, :, None] & ~c_is_b
        abd = used_d & tf.greater_equal(graph.far_table, 0)[:, :, None] & ~d_is_a
        self.mask_cab, self.mask_abd, self.mask_cd = (tf.cast(mask, dtype) for mask in (cab, abd, ~c_is_d))

    def circular(self, radial: tf.Tensor) -> tf.Tensor:
        """Return the basis of d_ab and angle a-b-d from its radial part, (a * b, l, units) -> (a, b, d, units)."""
        radial = tf.reshape(radial, [self.shape[0], self.shape[1], *radial.shape[1:]])
        return tf.matmul(self.angular_abd, radial)

    def to_paths(self, x: tf.Tensor) -> tf.Tensor:
        """Gather messages of the edges d -> b, (edges, f) -> (a, b, d, f), zero where there is no edge."""
        return self._of_b(self.slots.pad(x)) * self.mask_abd[..., None]

    def sum_outer(self, x: tf.Tensor, radial: tf.Tensor) -> tf.Tensor:
        """Return sum_bd c_k(cabd) x_f(abd) with c_k = sum_lm Y_lm G_lmk and the radial part G of the edge c -> a.

        The sum comes before learned factors (App. C) and is one matrix product for each atom.

        (a, b, d, f), (edges, num_spherical^2, k) -> (edges, k, f)
        """
        harmonics, features = self.num_spherical**2, x.shape[-1]
        atoms, b, d = tf.unstack(self.shape)
        y = tf.reshape(self.y, [atoms, d * harmonics, b * d])  # edges c -> a have as many slots as d -> b
        total = tf.matmul(y, tf.reshape(x, [atoms, b * d, features]))
        total = self.slots.unpad(tf.reshape(total, [atoms, d, harmonics, features]))  # (edges, num_spherical^2, f)
        return tf.matmul(radial, total, transpose_a=True)
