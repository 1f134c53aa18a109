"""Vectors, distances and angles of a graph, with finite derivatives at singular points."""

from __future__ import annotations

import tensorflow as tf

from dimenet_tf.graph import Graph
from dimenet_tf.graph.graph import OptionalArray
from dimenet_tf.layers.gathers import gather

ANGLES = {
    "interior": "angle at j between k and i (the papers; GemNet, SphereNet)",
    "supplement": "pi minus that angle (the released DimeNet++)",
    "at_target": "angle at i between j and k (the released DimeNet)",
}


def edge_vectors(graph: Graph) -> tf.Tensor:
    """Return the vector of every edge from its target to its source, (edges, 3), Angstrom."""
    return vectors_between(graph, graph.edge_source, graph.edge_target, graph.edge_image)


def far_vectors(graph: Graph) -> tf.Tensor:
    """Return the vector of every far edge from its target to its source, (far edges, 3), Angstrom."""
    return vectors_between(graph, graph.far_source, graph.far_target, graph.far_image)


def vectors_between(graph: Graph, source: tf.Tensor, target: tf.Tensor, image: OptionalArray) -> tf.Tensor:
    """Return the vectors from target atoms to images of source atoms, (pairs, 3), Angstrom.

    The difference of the atoms comes before the shift, so that the vector of a reverse pair is exactly the negative.
    """
    vectors = gather(graph.positions, source) - gather(graph.positions, target)
    if not graph.is_periodic:
        return vectors
    cells = tf.reshape(graph.cell, [-1, 9])
    a, b, c = tf.split(gather(cells, tf.gather(graph.molecule_of_atom, target)), 3, axis=1)  # (pairs, 3) each
    i, j, k = tf.split(tf.cast(image, vectors.dtype), 3, axis=1)
    return vectors + (i * a + j * b + k * c)


def safe_norm(vectors: tf.Tensor) -> tf.Tensor:
    """Return lengths along the last axis. At zero length the value and all derivatives are zero instead of NaN."""
    square = tf.reduce_sum(vectors * vectors, axis=-1)
    zero = square == 0
    # two `where`: the gradient of the unused branch must be finite
    return tf.where(zero, tf.zeros_like(square), tf.sqrt(tf.where(zero, tf.ones_like(square), square)))


def unit_vectors(vectors: tf.Tensor) -> tf.Tensor:
    """Return directions of vectors; the direction of a zero vector is zero."""
    length = safe_norm(vectors)[..., None]
    zero = length == 0
    return tf.where(zero, tf.zeros_like(vectors), vectors / tf.where(zero, tf.ones_like(length), length))


def perpendicular_frame(directions: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Return two vectors that make a right-handed frame with unit vectors, (..., 3) -> (..., 3), (..., 3).

    The formula of Duff et al., "Building an Orthonormal Basis, Revisited", 2017, has no singularity, but the frame
    jumps where z = 0. So results must not depend on a rotation of the frame about its axis.
    """
    x, y, z = tf.unstack(directions, axis=-1)
    sign = tf.where(z < 0, -tf.ones_like(z), tf.ones_like(z))
    a = -1 / (sign + z)
    b = x * y * a
    first = tf.stack([1 + sign * x * x * a, sign * b, -sign * x], axis=-1)
    return first, tf.stack([b, sign + y * y * a, -y], axis=-1)


def cos_angle(angle: str, v_kj: tf.Tensor, v_ji: tf.Tensor) -> tf.Tensor:
    """Return the cosine of the angle of edges k -> j -> i from their vectors (target to source), (..., 3) -> (...).

    The arguments broadcast. A scalar product of unit vectors needs no acos and no atan2, so linear molecules have
    finite forces.
    """
    if angle == "at_target":
        return tf.reduce_sum(unit_vectors(v_ji) * unit_vectors(v_kj + v_ji), axis=-1)
    supplement = tf.reduce_sum(unit_vectors(v_kj) * unit_vectors(v_ji), axis=-1)
    return supplement if angle == "supplement" else -supplement
