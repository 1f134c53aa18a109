"""Graphs from atoms with TensorFlow operations alone: what a served model does without the host's neighbor search.

The same edges in the same order as `GraphStore` finds. Requests that cannot be computed fail an assertion, which
servers report as INVALID_ARGUMENT with the reason.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import tensorflow as tf

from dimenet_tf.errors import UserError
from dimenet_tf.graph.graph import Graph, check_needs
from dimenet_tf.structures.limits import CLOSEST, FARTHEST, FEWEST, MOST, RADIUS, SCATTERED, window

NUM_ELEMENTS = 95
CELLS = 2**12  # to each side of the origin


def unpad(Z: tf.Tensor, R: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Return flat arrays of zero-padded molecules.

    Parameters
    ----------
    Z : (molecules, atoms) int32, 0 behind each molecule's atoms
    R : (molecules, atoms, 3), Angstrom

    Returns
    -------
    Z (atoms,), R (atoms, 3), num_atoms (molecules,) int32
    """
    shapes = "Z must be (molecules, atoms) and R (molecules, atoms, 3); shapes differ in axis"
    Z, R = after([refuse(tf.shape(R)[:2] != tf.shape(Z), shapes)], Z, R)
    real = Z != 0
    behind = tf.reduce_any(~real[:, :-1] & real[:, 1:], axis=1)
    Z, R = after([refuse(behind, "Z = 0 is padding and may only stand behind atoms: molecule")], Z, R)
    return tf.boolean_mask(Z, real), tf.boolean_mask(R, real), tf.reduce_sum(tf.cast(real, tf.int32), axis=1)


def pad(values: tf.Tensor, Z: tf.Tensor) -> tf.Tensor:
    """Return values of atoms (atoms, 3) at their places in padded arrays (molecules, atoms, 3); 0 for padding."""
    return tf.scatter_nd(tf.where(Z != 0), values, tf.concat([tf.shape(Z, tf.int64), [3]], axis=0))


def count_atoms(molecule_of_atom: tf.Tensor) -> tf.Tensor:
    """Return the atoms of each molecule, (molecules,) int32; refuse numbers that are not 0, 1, 2, ... in order."""
    checks = [
        refuse(molecule_of_atom[1:] < molecule_of_atom[:-1], "molecule_of_atom must ascend; it does not behind atom"),
        refuse(molecule_of_atom[:1] < 0, "molecule_of_atom must begin with 0: atom"),
    ]
    (molecule_of_atom,) = after(checks, molecule_of_atom)
    return tf.math.bincount(molecule_of_atom, dtype=tf.int32)


def check_lengths(**arrays: tf.Tensor) -> list[tf.Tensor]:
    """Return arrays of atoms, by name; refuse different lengths."""
    lengths = tf.stack([tf.shape(array)[0] for array in arrays.values()])
    differ = refuse(
        lengths != lengths[0], f"{', '.join(arrays)} must have a row for each atom; lengths differ in array"
    )
    return after([differ], *arrays.values())


def check_atoms(
    Z: tf.Tensor, R: tf.Tensor, num_atoms: tf.Tensor, elements: Sequence[int], max_atoms: int | None
) -> list[tf.Tensor]:
    """Return Z, R and num_atoms; refuse empty batches and molecules, unknown elements, positions that are not finite.

    Also molecules of more than `max_atoms` atoms, unless that is None.
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

    Refuses molecules so far from the origin that the dtype of R has cut their positions: `limits.too_far`.
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
    """Return positions; refuse atoms that are too close, scattered molecules, and bonds as long as in another unit.

    The limits are those of `dimenet_tf.structures.limits`.
    """
    source, target, _ = edges
    atoms, molecules = tf.size(Z), tf.size(num_atoms)
    molecule = tf.repeat(tf.range(molecules), num_atoms)
    distance = _distance(R, source, target)
    radius = tf.gather(tf.constant(np.nan_to_num(RADIUS), R.dtype), Z)  # 0 where the element suggests no unit
    own, other = tf.gather(radius, target), tf.gather(radius, source)
    shortest = distance == tf.gather(tf.math.unsorted_segment_min(distance, target, atoms), target)
    judged = shortest & (own > 0) & (other > 0)

    def count(edges: tf.Tensor) -> tf.Tensor:
        """Atoms that one of these edges goes to."""
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
    """Fail with the reason and the number of the first bad row, or its name; see `after`."""
    bad = tf.concat([bad, [False]], axis=0)  # nothing has no largest element
    first = tf.argmax(tf.cast(bad, tf.int32), output_type=tf.int32)
    number = first if names is None else tf.gather(tf.concat([names, [0]], axis=0), first)
    return tf.debugging.Assert(~tf.reduce_any(bad), [reason, number])


def after(checks: Sequence, *tensors: tf.Tensor) -> list[tf.Tensor]:
    """Return tensors that are there when the checks have passed: what comes next never sees what was refused."""
    with tf.control_dependencies([check for check in checks if check is not None]):  # eagerly they have run already
        return [tf.identity(tensor) for tensor in tensors]


def find_edges(R: tf.Tensor, num_atoms: tf.Tensor, cutoff: float) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Return edge_source, edge_target, edge_reverse, (edges,) int32, sorted by (target, source).

    Atoms are put into cells a cutoff wide, and compared with those in the cells around them: time and memory are linear
    in the number of atoms.
    """
    molecule = tf.repeat(tf.range(tf.size(num_atoms, tf.int64)), num_atoms)
    cell = _cells(R, cutoff)  # (atoms, 3)
    number = _cell_number(molecule, cell)
    order = tf.argsort(number)
    ascending = tf.gather(number, order)
    columns = tf.constant([[x, y, 0] for x in (-1, 0, 1) for y in (-1, 0, 1)], tf.int64)
    around = cell[:, None] + columns  # (atoms, 9, 3), each stands for three cells in a row
    lowest, highest = (tf.reshape(_cell_number(molecule[:, None], around + [0, 0, z]), [-1]) for z in (-1, 1))
    first = tf.searchsorted(ascending, lowest)  # (9 atoms,)
    size = tf.searchsorted(ascending, highest, side="right") - first
    target = tf.repeat(tf.range(9 * tf.shape(R)[0]) // 9, size)  # (pairs,)
    within = tf.range(tf.size(target)) - tf.repeat(tf.cumsum(size, exclusive=True), size)
    source = tf.gather(order, tf.repeat(first, size) + within)
    near = tf.where((_distance(R, source, target) <= tf.constant(cutoff, R.dtype)) & (source != target))[:, 0]
    return _sort(tf.gather(source, near), tf.gather(target, near), tf.shape(R)[0])


def sort_edges(
    edge_source: tf.Tensor, edge_target: tf.Tensor, R: tf.Tensor, num_atoms: tf.Tensor, cutoff: float
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Return a client's edges as `find_edges` does: sorted, within the cutoff, with their reverse edges.

    Refuses edges that are out of range, between molecules, from an atom to itself, given twice, or without the opposite
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
    near = tf.where(_distance(R, source, target) <= tf.constant(cutoff, R.dtype))[:, 0]
    source, target, reverse = _sort(tf.gather(source, near), tf.gather(target, near), count)
    twice = (source[1:] == source[:-1]) & (target[1:] == target[:-1])
    one_way = (tf.gather(source, reverse) != target) | (tf.gather(target, reverse) != source)
    checks = [
        joins,
        refuse(twice, "an edge is given twice: edge (in sorted order)"),
        refuse(one_way, "an edge is given in one direction only: edge (in sorted order)"),
    ]
    return tuple(after(checks, source, target, reverse))


def complete_graph(
    Z: tf.Tensor,
    R: tf.Tensor,
    num_atoms: tf.Tensor,
    edges: tuple[tf.Tensor, tf.Tensor, tf.Tensor],
    cutoff: float,
    needs: Iterable[str],
) -> Graph:
    """Return the `Graph` of flat atoms and their edges up to `cutoff`, with the index arrays that a model needs."""
    source, target, reverse = edges
    atoms, needs = tf.size(Z), check_needs(needs)
    molecule = tf.repeat(tf.range(tf.size(num_atoms)), num_atoms)
    degree = tf.math.bincount(target, minlength=atoms, maxlength=atoms, dtype=tf.int32)
    kj, ji = _triplets(source, reverse, degree) if "triplets" in needs else ((), ())
    table = neighbor_table(target, degree) if "atom_edges" in needs else ()
    return Graph(
        positions=R,
        atomic_numbers=Z,
        molecule_of_atom=molecule,
        num_atoms=num_atoms,
        edge_source=source,
        edge_target=target,
        edge_reverse=reverse,
        edge_shift=tf.zeros([tf.size(source), 3], R.dtype),
        cutoff=tf.constant(cutoff, tf.float64),
        atom_edges=table,
        triplet_kj=kj,
        triplet_ji=ji,
    )


def _sort(source: tf.Tensor, target: tf.Tensor, num_atoms: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Return edges sorted by (target, source), and of each the reverse one (some other one if it is not there)."""
    wide = tf.cast(num_atoms, tf.int64)
    key = tf.sort(tf.cast(target, tf.int64) * wide + tf.cast(source, tf.int64))
    target, source = key // wide, key % wide
    reverse = tf.minimum(tf.searchsorted(key, source * wide + target), tf.size(key) - 1)
    return tf.cast(source, tf.int32), tf.cast(target, tf.int32), reverse


def _cells(R: tf.Tensor, cutoff: float) -> tf.Tensor:
    """Return the cell of each atom, (atoms, 3) int64; neighbors are in the same cell or in two that touch.

    Positions thousands of cells away from the origin share the outermost ones, which keeps that true.
    """
    width = 1.000001 * cutoff  # more than rounding takes from a distance
    return tf.cast(tf.clip_by_value(tf.floor(tf.cast(R, tf.float64) / width), 1 - CELLS, CELLS - 2), tf.int64)


def _cell_number(molecule: tf.Tensor, cell: tf.Tensor) -> tf.Tensor:
    """Return a number for each cell of each molecule, (...,) int64: one after the other along z."""
    x, y, z = tf.unstack(cell + CELLS, axis=-1)
    return ((molecule * (2 * CELLS) + x) * (2 * CELLS) + y) * (2 * CELLS) + z


def _distance(R: tf.Tensor, source: tf.Tensor, target: tf.Tensor) -> tf.Tensor:
    x, y, z = tf.unstack(tf.gather(R, source) - tf.gather(R, target), axis=1)
    return tf.sqrt(x * x + y * y + z * z)  # in the host's order of operations: the same pairs at the cutoff


def neighbor_table(target: tf.Tensor, degree: tf.Tensor) -> tf.Tensor:
    """Return the edges that go to each atom, (atoms, max_neighbors) int32, filled up with -1."""
    first = tf.cumsum(degree, exclusive=True)
    edges = tf.range(tf.size(target))
    width = tf.reduce_max(tf.concat([degree, [0]], axis=0))
    place = target * width + edges - tf.gather(first, target)
    table = tf.tensor_scatter_nd_update(tf.fill([tf.size(degree) * width], -1), place[:, None], edges)
    return tf.reshape(table, [tf.size(degree), width])


def _triplets(source: tf.Tensor, reverse: tf.Tensor, degree: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    count = tf.gather(degree, source)  # edges that come into j, one of them from i
    ji = tf.repeat(tf.range(tf.size(source)), count)
    within = tf.range(tf.size(ji)) - tf.gather(tf.cumsum(count, exclusive=True), ji)
    kj = tf.gather(tf.cumsum(degree, exclusive=True), tf.gather(source, ji)) + within
    keep = kj != tf.gather(reverse, ji)
    return tf.boolean_mask(kj, keep), tf.boolean_mask(ji, keep)
