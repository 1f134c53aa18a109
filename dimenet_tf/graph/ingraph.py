"""Checks of a request with TensorFlow operations alone, as served models make them.

Requests that cannot be computed fail an assertion, which servers report as INVALID_ARGUMENT with the reason. The graphs
are then built by `dimenet_tf.graph.build_tensorflow`.

Examples
--------
Two molecules in zero-padded arrays, a water and a hydrogen atom:

>>> import tensorflow as tf
>>> from dimenet_tf.graph import ingraph
>>> padded = tf.constant([[8, 1, 1], [1, 0, 0]])
>>> Z, R, num_atoms = ingraph.unpad(padded, tf.zeros([2, 3, 3]))
>>> Z.numpy().tolist(), R.shape.as_list(), num_atoms.numpy().tolist()
([8, 1, 1, 1], [4, 3], [3, 1])
>>> ingraph.pad(R, padded).shape.as_list()
[2, 3, 3]
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from dimenet_tf.errors import UserError
from dimenet_tf.graph.build_tensorflow import edge_lengths, order_edges
from dimenet_tf.structures.limits import CLOSEST, FARTHEST, FEWEST, MOST, RADIUS, SCATTERED, window

NUM_ELEMENTS = 95


def unpad(Z: tf.Tensor, R: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Return flat arrays of zero-padded molecules.

    Parameters
    ----------
    Z : (molecules, atoms) int32, zero-padded after the atoms of each molecule
    R : (molecules, atoms, 3), Angstrom

    Returns
    -------
    Z (atoms,), R (atoms, 3), num_atoms (molecules,) int32
    """
    shapes = "Z must be (molecules, atoms) and R (molecules, atoms, 3); shapes differ in axis"
    Z, R = after([refuse(tf.shape(R)[:2] != tf.shape(Z), shapes)], Z, R)
    real = Z != 0
    misplaced = tf.reduce_any(~real[:, :-1] & real[:, 1:], axis=1)
    Z, R = after([refuse(misplaced, "Z = 0 is padding and must follow all atoms: molecule")], Z, R)
    return tf.boolean_mask(Z, real), tf.boolean_mask(R, real), tf.reduce_sum(tf.cast(real, tf.int32), axis=1)


def pad(values: tf.Tensor, Z: tf.Tensor) -> tf.Tensor:
    """Return values of atoms, (atoms, 3), in padded arrays, (molecules, atoms, 3), with 0 for padding."""
    return tf.scatter_nd(tf.where(Z != 0), values, tf.concat([tf.shape(Z, tf.int64), [3]], axis=0))


def count_atoms(molecule_of_atom: tf.Tensor) -> tf.Tensor:
    """Count the atoms of each molecule, (molecules,) int32; refuse numbers that are not 0, 1, 2, ... in order."""
    checks = [
        refuse(molecule_of_atom[1:] < molecule_of_atom[:-1], "molecule_of_atom must ascend; it descends after atom"),
        refuse(molecule_of_atom[:1] < 0, "molecule_of_atom must begin with 0: atom"),
    ]
    (molecule_of_atom,) = after(checks, molecule_of_atom)
    return tf.math.bincount(molecule_of_atom, dtype=tf.int32)


def check_lengths(**arrays: tf.Tensor) -> list[tf.Tensor]:
    """Return arrays of atoms, given by name; refuse different lengths."""
    lengths = tf.stack([tf.shape(array)[0] for array in arrays.values()])
    differ = refuse(
        lengths != lengths[0], f"{', '.join(arrays)} must have a row for each atom; lengths differ in array"
    )
    return after([differ], *arrays.values())


def check_atoms(
    Z: tf.Tensor, R: tf.Tensor, num_atoms: tf.Tensor, elements: Sequence[int], max_atoms: int | None
) -> list[tf.Tensor]:
    """Return Z, R and num_atoms; refuse empty batches and molecules, unknown elements, positions that are not finite.

    Molecules of more than `max_atoms` atoms are refused too, unless that is None.
    """
    known = tf.constant([z in set(elements) for z in range(NUM_ELEMENTS)])
    unknown = ~tf.gather(known, tf.clip_by_value(Z, 0, NUM_ELEMENTS - 1)) | (Z < 0) | (Z >= NUM_ELEMENTS)
    molecule = tf.repeat(tf.range(tf.size(num_atoms)), num_atoms)
    checks = [
        refuse(tf.size(num_atoms)[None] == 0, "the request holds no molecules: molecule"),
        refuse(num_atoms == 0, "a molecule has no atoms: molecule"),
        refuse(unknown, "an element that the training data did not contain: molecule", molecule),
        refuse(tf.reduce_any(~tf.math.is_finite(R), axis=1), "a coordinate is not finite: molecule", molecule),
    ]
    if max_atoms is not None:
        too_large = f"more than {max_atoms} atoms, for which this model is served: molecule"
        checks.append(refuse(num_atoms > max_atoms, too_large))
    return after(checks, Z, R, num_atoms)


def center(R: tf.Tensor, num_atoms: tf.Tensor) -> tf.Tensor:
    """Return positions relative to the centroid of their molecule, (atoms, 3) float64.

    Refuse molecules so far from the origin that the dtype of R rounds their positions: see `limits.too_far`.
    """
    if R.dtype.is_integer:
        R = tf.cast(R, tf.float64)
    if R.dtype.size < 4:
        raise UserError(f"positions must be float32 or float64 numbers, got {R.dtype.name}")
    molecules = tf.size(num_atoms)
    molecule = tf.repeat(tf.range(molecules), num_atoms)

    def largest(x: tf.Tensor) -> tf.Tensor:
        return tf.math.unsorted_segment_max(tf.reduce_max(tf.abs(x), axis=1), molecule, molecules)

    wide = tf.cast(R, tf.float64)
    relative = wide - tf.gather(tf.math.unsorted_segment_mean(wide, molecule, molecules), molecule)
    limit = FARTHEST[R.dtype.name]
    bad = largest(wide) > tf.maximum(tf.constant(limit, tf.float64), 2 * largest(relative))
    reason = f"more than {limit:.2g} Ang from the origin, where {R.dtype.name} cuts positions: molecule"
    return after([refuse(bad, reason)], relative)[0]


def check_distances(
    Z: tf.Tensor, R: tf.Tensor, num_atoms: tf.Tensor, edges: tuple[tf.Tensor, tf.Tensor, tf.Tensor], cutoff: float
) -> tf.Tensor:
    """Return positions; refuse atoms that are too close, scattered molecules, and bond lengths in another unit.

    The limits are those of `dimenet_tf.structures.limits`.
    """
    source, target, _ = edges
    atoms, molecules = tf.size(Z), tf.size(num_atoms)
    molecule = tf.repeat(tf.range(molecules), num_atoms)
    distance = edge_lengths(R, source, target)
    radius = tf.gather(tf.constant(np.nan_to_num(RADIUS), R.dtype), Z)  # 0 where the element suggests no unit
    own, other = tf.gather(radius, target), tf.gather(radius, source)
    shortest = distance == tf.gather(tf.math.unsorted_segment_min(distance, target, atoms), target)
    judged = shortest & (own > 0) & (other > 0)

    def count(edges: tf.Tensor) -> tf.Tensor:
        """Count the atoms that one of these edges goes to."""
        return tf.reduce_sum(tf.maximum(tf.math.unsorted_segment_max(tf.cast(edges, tf.int32), target, atoms), 0))

    checks = []
    for unit in ("nm", "a0"):
        low, high = (tf.constant(bound, R.dtype) * (own + other) for bound in window(unit))
        fitting = tf.cast(count(judged & (low < distance) & (distance < high)), tf.float64)
        enough = tf.cast(count(judged), tf.float64)
        bad = (enough >= FEWEST) & (fitting > MOST * enough)
        checks.append(refuse(bad[None], f"bonds are as long as if R were in {unit}, not in Angstrom: request"))
    alone = tf.math.unsorted_segment_sum(tf.ones_like(target), tf.gather(molecule, target), molecules) == 0
    scattered = f"no two of its atoms are within {cutoff:g} Ang; is R in Angstrom? molecule"
    checks += [
        refuse(distance < CLOSEST, f"two atoms are closer than {CLOSEST} Ang: molecule", tf.gather(molecule, target)),
        refuse(alone & (num_atoms >= SCATTERED), scattered),
    ]
    return after(checks, R)[0]


def refuse(bad: tf.Tensor, reason: str, names: tf.Tensor | None = None) -> tf.Operation | None:
    """Fail with the reason and the first bad row, by its number or its entry in `names`; see `after`."""
    bad = tf.concat([bad, [False]], axis=0)  # so that an empty array has a largest element
    first = tf.argmax(tf.cast(bad, tf.int32), output_type=tf.int32)
    number = first if names is None else tf.gather(tf.concat([names, [0]], axis=0), first)
    return tf.debugging.Assert(~tf.reduce_any(bad), [reason, number])


def after(checks: Sequence, *tensors: tf.Tensor) -> list[tf.Tensor]:
    """Return tensors that exist only after the checks have passed, so that no later operation sees refused values."""
    with tf.control_dependencies([check for check in checks if check is not None]):  # None: it has run eagerly
        return [tf.identity(tensor) for tensor in tensors]


def sort_edges(
    edge_source: tf.Tensor, edge_target: tf.Tensor, R: tf.Tensor, num_atoms: tf.Tensor, cutoff: float
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Return a client's edges as `find_edges_tensorflow` does: sorted, within the cutoff, with their reverse edges.

    Refuse edges that are out of range, between molecules, from an atom to itself, given twice, or without the opposite
    direction.
    """
    source, target, count = edge_source, edge_target, tf.shape(R)[0]
    lengths = refuse(tf.shape(source) != tf.shape(target), "edge_source and edge_target differ in length: axis")
    source, target = after([lengths], source, target)
    outside = (source < 0) | (source >= count) | (target < 0) | (target >= count)
    checks = [
        refuse(outside, "an atom of an edge does not exist: edge"),
        refuse(source == target, "an edge runs from an atom to itself: edge"),
    ]
    source, target = after(checks, source, target)
    molecule = tf.repeat(tf.range(tf.size(num_atoms)), num_atoms)
    joins = refuse(tf.gather(molecule, source) != tf.gather(molecule, target), "an edge joins two molecules: edge")
    near = tf.where(edge_lengths(R, source, target) <= tf.constant(cutoff, R.dtype))[:, 0]
    source, target, reverse = order_edges(tf.gather(source, near), tf.gather(target, near), count)
    twice = (source[1:] == source[:-1]) & (target[1:] == target[:-1])
    one_way = (tf.gather(source, reverse) != target) | (tf.gather(target, reverse) != source)
    checks = [
        joins,
        refuse(twice, "an edge is given twice: edge (in sorted order)"),
        refuse(one_way, "an edge is given in one direction only: edge (in sorted order)"),
    ]
    return tuple(after(checks, source, target, reverse))
