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
from dimenet_tf.graph.build_tensorflow import CellTensors, EdgeTensors, edge_lengths, order_edges
from dimenet_tf.structures.cells import FLAT, MOST_IMAGES, MOST_POINTS
from dimenet_tf.structures.limits import CLOSEST, FARTHEST, FEWEST, MOST, RADIUS, REACH, SCATTERED, window

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


def check_cells(cell: tf.Tensor, pbc: tf.Tensor, num_atoms: tf.Tensor) -> CellTensors:
    """Return the cells of molecules, zero for those that are not periodic; refuse those that span no lattice.

    The limits are those of `dimenet_tf.structures.cells.why_refused`.

    Parameters
    ----------
    cell, pbc : (molecules, 3, 3), (molecules, 3) bool
    num_atoms : (molecules,) int32
    """
    molecules = tf.size(num_atoms)
    shapes = "cell must be (molecules, 3, 3) and pbc (molecules, 3); sizes differ from the number of molecules in array"
    rows = tf.stack([tf.shape(cell)[0], tf.shape(pbc)[0]])
    cell, pbc = after([refuse(rows != molecules, shapes)], cell, pbc)
    vectors = tf.where(pbc[:, :, None], tf.cast(cell, tf.float64), 0.0)
    finite = refuse(tf.reduce_any(~tf.math.is_finite(vectors), axis=[1, 2]), "has a cell that is not finite: molecule")
    vectors, pbc = after([finite], vectors, pbc)
    lengths = tf.where(pbc, tf.norm(vectors, axis=2), 1.0)
    # a unit matrix in place of what is not periodic leaves the volume of the periodic directions
    gram = vectors @ tf.transpose(vectors, [0, 2, 1]) + tf.linalg.diag(tf.cast(~pbc, lengths.dtype))
    volume = tf.sqrt(tf.maximum(tf.linalg.det(gram), 0))
    full = tf.reduce_all(pbc, axis=1)
    flat = (volume <= FLAT * tf.reduce_prod(lengths, axis=1)) | tf.reduce_any(lengths == 0, axis=1)
    short = tf.reduce_any(lengths < CLOSEST, axis=1)
    crowded = full & (volume < tf.cast(num_atoms, tf.float64) * CLOSEST**3 / 2)
    checks = [
        refuse(flat, "has a flat or zero cell, whose lattice vectors span no volume: molecule"),
        refuse(short | crowded, "has a cell too small for its atoms; is it in Angstrom? molecule"),
    ]
    vectors, pbc = after(checks, vectors, pbc)
    per_height = tf.norm(CellTensors(vectors, pbc).inverse(), axis=1)  # 1 over the distance of lattice planes
    images = tf.reduce_prod(2 * tf.math.ceil(REACH * per_height) + 1, axis=1)
    skewed = (
        "has a cell too flat or too skewed for a search of its images; choose a shorter cell of its lattice: molecule"
    )
    keep = tf.reduce_any(pbc, axis=1)[:, None, None]
    checks = [refuse(images > MOST_IMAGES, skewed)]
    cell, pbc = after(checks, tf.where(keep, tf.cast(cell, tf.float64), 0.0), pbc)
    return CellTensors(cell, pbc)


def check_points(R: tf.Tensor, num_atoms: tf.Tensor, cutoff: float, cells: CellTensors) -> tf.Tensor:
    """Return positions; refuse requests whose atoms have too many images within the cutoff of their cells."""
    molecule = tf.repeat(tf.range(tf.size(num_atoms)), num_atoms)
    margin = cutoff * tf.norm(cells.inverse(), axis=1)  # in lattice coordinates, (molecules, 3)
    of_atom = tf.reduce_prod(1 + tf.where(cells.pbc, 2 * margin, 0.0), axis=1)
    points = tf.reduce_sum(tf.gather(of_atom, molecule))
    reason = (
        f"more than {MOST_POINTS} images of atoms within {cutoff:g} Ang of the cells; send fewer structures: request"
    )
    return after([refuse((points > MOST_POINTS)[None], reason)], R)[0]


def wrap(R: tf.Tensor, num_atoms: tf.Tensor, cells: CellTensors) -> tuple[tf.Tensor, tf.Tensor]:
    """Put the atoms of periodic structures into their cells.

    Returns
    -------
    positions : (atoms, 3) float64
    offsets : (atoms, 3) int32, the image of the cell that each atom was in
    """
    molecule = tf.repeat(tf.range(tf.size(num_atoms)), num_atoms)
    wide = tf.cast(R, tf.float64)
    coordinates = tf.squeeze(wide[:, None] @ tf.gather(cells.inverse(), molecule), axis=1)
    offsets = tf.where(tf.gather(cells.pbc, molecule), tf.floor(coordinates), 0.0)
    shift = tf.squeeze(offsets[:, None] @ tf.gather(cells.cell, molecule), axis=1)
    return wide - shift, tf.cast(offsets, tf.int32)


def images_of_wrapped(source: tf.Tensor, target: tf.Tensor, image: tf.Tensor, offsets: tf.Tensor) -> tf.Tensor:
    """Return the images of edges after their atoms were put into the cell, (edges, 3); see `wrap`.

    Numbers of atoms that do not exist are refused by `sort_edges` afterwards.
    """
    last = tf.shape(offsets)[0] - 1
    moved = [tf.gather(offsets, tf.clip_by_value(atoms, 0, last)) for atoms in (source, target)]
    return image + moved[0] - moved[1]


def center(R: tf.Tensor, num_atoms: tf.Tensor, cells: CellTensors | None = None) -> tuple[tf.Tensor, tf.Tensor | None]:
    """Return positions relative to the centroid of their molecule, (atoms, 3) float64, and offsets of `wrap`.

    Atoms of periodic structures are put into their cells first; without `cells` there are no offsets.
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
    (R,) = after([refuse(bad, reason)], R)
    if cells is None:
        return after([refuse(bad, reason)], relative)[0], None
    inside, offsets = wrap(R, num_atoms, cells)
    return inside - tf.gather(tf.math.unsorted_segment_mean(inside, molecule, molecules), molecule), offsets


def check_distances(
    Z: tf.Tensor,
    R: tf.Tensor,
    num_atoms: tf.Tensor,
    edges: EdgeTensors,
    cutoff: float,
    cells: CellTensors | None = None,
) -> tf.Tensor:
    """Return positions; refuse atoms that are too close, scattered molecules, and bond lengths in another unit.

    The limits are those of `dimenet_tf.structures.limits`.
    """
    source, target = edges.source, edges.target
    atoms, molecules = tf.size(Z), tf.size(num_atoms)
    molecule = tf.repeat(tf.range(molecules), num_atoms)
    distance = edge_lengths(R, source, target, cells, None if cells is None else edges.image, molecule)
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
    edge_source: tf.Tensor,
    edge_target: tf.Tensor,
    R: tf.Tensor,
    num_atoms: tf.Tensor,
    cutoff: float,
    cells: CellTensors | None = None,
    edge_image: tf.Tensor | None = None,
) -> EdgeTensors:
    """Return a client's edges as `find_edges_tensorflow` does: sorted, within the cutoff, with their reverse edges.

    Refuse edges that are out of range, between molecules, from an atom to itself in the same image, given twice, or
    without the opposite direction.
    """
    source, target, count = edge_source, edge_target, tf.shape(R)[0]
    lengths = [refuse(tf.shape(source) != tf.shape(target), "edge_source and edge_target differ in length: axis")]
    if edge_image is not None:
        rows = tf.shape(edge_image)[:1] != tf.shape(target)
        lengths.append(refuse(rows, "edge_image must have a row for each edge; lengths differ in axis"))
    source, target = after(lengths, source, target)
    outside = (source < 0) | (source >= count) | (target < 0) | (target >= count)
    itself = source == target
    if edge_image is not None:
        itself &= tf.reduce_all(edge_image == 0, axis=1)
    checks = [
        refuse(outside, "an atom of an edge does not exist: edge"),
        refuse(itself, "an edge runs from an atom to itself: edge"),
    ]
    source, target = after(checks, source, target)
    molecule = tf.repeat(tf.range(tf.size(num_atoms)), num_atoms)
    joins = refuse(tf.gather(molecule, source) != tf.gather(molecule, target), "an edge joins two molecules: edge")
    checks = [joins]
    if edge_image is not None and cells is not None:
        directions = tf.gather(tf.gather(cells.pbc, molecule), target)
        beyond = tf.reduce_any((edge_image != 0) & ~directions, axis=1)
        checks.append(refuse(beyond, "an edge has an image in a direction that is not periodic: edge"))
    near = edge_lengths(R, source, target, cells, edge_image, molecule) <= tf.constant(cutoff, R.dtype)
    near = tf.where(near)[:, 0]
    image = None if edge_image is None else tf.gather(edge_image, near)
    edges = order_edges(tf.gather(source, near), tf.gather(target, near), count, image)
    source, target, reverse, images = edges
    twice = (source[1:] == source[:-1]) & (target[1:] == target[:-1])
    one_way = (tf.gather(source, reverse) != target) | (tf.gather(target, reverse) != source)
    if edge_image is not None:
        images = tf.convert_to_tensor(images)
        twice &= tf.reduce_all(images[1:] == images[:-1], axis=1)
        one_way |= tf.reduce_any(tf.gather(images, reverse) + images != 0, axis=1)
    checks += [
        refuse(twice, "an edge is given twice: edge (in sorted order)"),
        refuse(one_way, "an edge is given in one direction only: edge (in sorted order)"),
    ]
    return edges._replace(**dict(zip(("source", "target", "reverse"), after(checks, source, target, reverse))))
