"""Graphs from TensorFlow tensors: neighbor search, index arrays, and the function that assembles a `Graph` of them.

Served models use it, which have no host to search for neighbors. Edges and their order are those of
`dimenet_tf.graph.build_numpy`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import tensorflow as tf

from dimenet_tf.graph.graph import FAR, Graph, OptionalArray, check_needs

BINS = 2**12  # to each side of the origin


class EdgeTensors(NamedTuple):
    """Edges of a batch, sorted by (target, source, image), with the reverse of each.

    Examples
    --------
    >>> import tensorflow as tf
    >>> from dimenet_tf.graph import find_edges_tensorflow
    >>> find_edges_tensorflow(tf.constant([[0.0, 0, 0], [0.74, 0, 0]]), tf.constant([2]), 5.0).reverse.numpy().tolist()
    [1, 0]
    """

    source: tf.Tensor
    """(edges,) int32."""
    target: tf.Tensor
    """(edges,) int32, ascending."""
    reverse: tf.Tensor
    """(edges,) int32."""
    image: OptionalArray = ()
    """(edges, 3) int32; `()` where nothing is periodic."""


class CellTensors(NamedTuple):
    """Unit cells of a batch.

    Examples
    --------
    >>> import tensorflow as tf
    >>> from dimenet_tf.graph import CellTensors, find_edges_tensorflow
    >>> chain = CellTensors(tf.constant([[[2.0, 0, 0], [0, 0, 0], [0, 0, 0]]]), tf.constant([[True, False, False]]))
    >>> find_edges_tensorflow(tf.zeros([1, 3]), tf.constant([1]), 3.0, chain).image.numpy().tolist()
    [[-1, 0, 0], [1, 0, 0]]
    """

    cell: tf.Tensor
    """(molecules, 3, 3), Angstrom: rows are lattice vectors, zero for molecules."""
    pbc: tf.Tensor
    """(molecules, 3) bool."""

    def inverse(self) -> tf.Tensor:
        """Return the matrices that turn positions into lattice coordinates, (molecules, 3, 3) float64.

        See `dimenet_tf.structures.cells.lattice_inverse`.

        Examples
        --------
        >>> import tensorflow as tf
        >>> from dimenet_tf.graph import CellTensors
        >>> cells = CellTensors(2 * tf.eye(3, batch_shape=[1]), tf.constant([[True, True, True]]))
        >>> cells.inverse().numpy().diagonal(axis1=1, axis2=2).round(6).tolist()
        [[0.5, 0.5, 0.5]]
        """
        return tf.linalg.pinv(tf.where(self.pbc[:, :, None], tf.cast(self.cell, tf.float64), 0.0))


def build_graph_tensorflow(
    Z: tf.Tensor,
    R: tf.Tensor,
    num_atoms: tf.Tensor,
    edges: EdgeTensors,
    cutoff: float,
    needs: Iterable[str] = (),
    cell: tf.Tensor | None = None,
    far: EdgeTensors | None = None,
    far_cutoff: float | None = None,
) -> Graph:
    """Build the `Graph` of flat tensors of atoms and their edges.

    Parameters
    ----------
    Z : (atoms,) int32, atomic numbers
    R : (atoms, 3) float32 or float64, positions in Angstrom
    num_atoms : (molecules,) int32, atoms of each molecule
    edges : EdgeTensors, sorted
    cutoff : float, Angstrom, up to which pairs are edges
    needs : the optional arrays to make; a model's `needs`
    cell : (molecules, 3, 3), zero for molecules; None if nothing is periodic
    far, far_cutoff : pairs up to the second cutoff, Angstrom, where they are needed

    Raises
    ------
    UserError
        For an unknown name in `needs`.

    Examples
    --------
    >>> import tensorflow as tf
    >>> from dimenet_tf.graph import build_graph_tensorflow, find_edges_tensorflow
    >>> R, num_atoms = tf.constant([[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]]), tf.constant([3])
    >>> edges = find_edges_tensorflow(R, num_atoms, 1.2)
    >>> build_graph_tensorflow(tf.constant([8, 1, 1]), R, num_atoms, edges, 1.2, ["atom_edges"])
    Graph(positions (3, 3), ..., edge_source (4,), ..., atom_edges (3, 2), cutoff 1.2 Ang)
    """
    atoms, needs = tf.size(Z), check_needs(needs)

    def degrees(target: tf.Tensor) -> tf.Tensor:
        return tf.math.bincount(target, minlength=atoms, maxlength=atoms, dtype=tf.int32)

    degree = degrees(edges.target)
    kj, ji = _find_triplets(edges.source, edges.reverse, degree) if "triplets" in needs else ((), ())
    graph = Graph(
        positions=R,
        atomic_numbers=Z,
        molecule_of_atom=tf.repeat(tf.range(tf.size(num_atoms)), num_atoms),
        num_atoms=num_atoms,
        edge_source=edges.source,
        edge_target=edges.target,
        edge_reverse=edges.reverse,
        cutoff=tf.constant(cutoff, tf.float64),
        atom_edges=neighbor_table_tensorflow(edges.target, degree) if "atom_edges" in needs else (),
        triplet_kj=kj,
        triplet_ji=ji,
        edge_image=() if cell is None else edges.image,
        cell=() if cell is None else tf.cast(cell, R.dtype),
    )
    if far is None or not needs & FAR:
        return graph
    table = neighbor_table_tensorflow(far.target, degrees(far.target)) if "far_table" in needs else ()
    with_far = graph._replace(
        far_source=far.source,
        far_target=far.target,
        far_image=() if cell is None else far.image,
        far_table=table,
        far_cutoff=tf.constant(far_cutoff, tf.float64),
    )
    return with_far.only(needs)


def find_edges_tensorflow(
    R: tf.Tensor, num_atoms: tf.Tensor, cutoff: float, cells: CellTensors | None = None
) -> EdgeTensors:
    """Find all ordered pairs of different atoms, or images of atoms, of one molecule at most `cutoff` apart.

    Atoms and their images are put into bins a cutoff wide, and compared with those in the bins around them. Time and
    memory are linear in the number of atoms, and of images that are within the cutoff of the cell.

    Parameters
    ----------
    R : (atoms, 3) float32 or float64, positions in Angstrom; atoms of periodic structures in their cell, wherever its
        origin is
    num_atoms : (molecules,) int32, atoms of each molecule
    cutoff : float, Angstrom. A pair at exactly the cutoff is an edge; distances are compared in the dtype of R.
    cells : of all molecules, None if nothing is periodic

    Returns
    -------
    EdgeTensors

    Examples
    --------
    >>> import tensorflow as tf
    >>> from dimenet_tf.graph import find_edges_tensorflow
    >>> R = tf.constant([[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]])
    >>> [index.numpy().tolist() for index in find_edges_tensorflow(R, tf.constant([3]), 1.2)[:3]]
    [[1, 2, 0, 0], [0, 0, 1, 2], [2, 3, 0, 1]]
    """
    atoms, molecule = tf.shape(R)[0], tf.repeat(tf.range(tf.size(num_atoms, tf.int64)), num_atoms)
    if cells is None:
        owner, image, points = tf.range(atoms), None, R
    else:
        owner, image = _images(R, molecule, cutoff, cells)
        points = tf.gather(R, owner) + _shifts(cells.cell, tf.gather(molecule, owner), image, R.dtype)
    bins = _bins(points, cutoff)  # (points, 3)
    number = _bin_number(tf.gather(molecule, owner), bins)
    order = tf.argsort(number)
    ascending = tf.gather(number, order)
    columns = tf.constant([[x, y, 0] for x in (-1, 0, 1) for y in (-1, 0, 1)], tf.int64)
    around = _bins(R, cutoff)[:, None] + columns  # (atoms, 9, 3), each stands for three bins in a row
    lowest, highest = (tf.reshape(_bin_number(molecule[:, None], around + [0, 0, z]), [-1]) for z in (-1, 1))
    first = tf.searchsorted(ascending, lowest)  # (9 atoms,)
    size = tf.searchsorted(ascending, highest, side="right") - first
    target = tf.repeat(tf.range(9 * atoms) // 9, size)  # (pairs,)
    within = tf.range(tf.size(target)) - tf.repeat(tf.cumsum(size, exclusive=True), size)
    point = tf.gather(order, tf.repeat(first, size) + within)
    source = tf.gather(owner, point)
    pair_image = None if image is None else tf.gather(image, point)
    near = edge_lengths(R, source, target, cells, pair_image, molecule) <= tf.constant(cutoff, R.dtype)
    itself = source == target
    if pair_image is not None:
        itself &= tf.reduce_all(pair_image == 0, axis=1)
    near = tf.where(near & ~itself)[:, 0]
    found = None if pair_image is None else tf.gather(pair_image, near)
    return order_edges(tf.gather(source, near), tf.gather(target, near), atoms, found)


def order_edges(
    source: tf.Tensor, target: tf.Tensor, num_atoms: tf.Tensor, image: tf.Tensor | None = None
) -> EdgeTensors:
    """Sort edges by (target, source, image), and find the reverse of each, or some other edge where that is missing."""
    wide = tf.cast(num_atoms, tf.int64)
    source, target = tf.cast(source, tf.int64), tf.cast(target, tf.int64)
    if image is None:
        key = tf.sort(target * wide + source)
        target, source = key // wide, key % wide
        reverse = _places(key, source * wide + target)
        return EdgeTensors(tf.cast(source, tf.int32), tf.cast(target, tf.int32), reverse)
    image = tf.cast(image, tf.int64)
    reach = tf.reduce_max(tf.concat([tf.abs(image), tf.zeros([1, 3], tf.int64)], axis=0), axis=0)
    sizes = 2 * reach + 1
    stride = tf.stack([sizes[1] * sizes[2], sizes[2], 1])
    images = tf.reduce_prod(sizes)
    key = (target * wide + source) * images + tf.reduce_sum((image + reach) * stride, axis=1)
    order = tf.argsort(key)
    key, source, target, image = (tf.gather(array, order) for array in (key, source, target, image))
    reverse = _places(key, (source * wide + target) * images + tf.reduce_sum((reach - image) * stride, axis=1))
    return EdgeTensors(tf.cast(source, tf.int32), tf.cast(target, tf.int32), reverse, tf.cast(image, tf.int32))


def _places(ascending: tf.Tensor, values: tf.Tensor) -> tf.Tensor:
    """Return the place of each value among ascending ones, or of some other where it is missing."""
    return tf.minimum(tf.searchsorted(ascending, values), tf.size(ascending) - 1)


def edge_lengths(
    R: tf.Tensor,
    source: tf.Tensor,
    target: tf.Tensor,
    cells: CellTensors | None = None,
    image: tf.Tensor | None = None,
    molecule: tf.Tensor | None = None,
) -> tf.Tensor:
    """Return the distance of the two atoms of each edge, (edges,), Angstrom."""
    vectors = tf.gather(R, source) - tf.gather(R, target)
    if cells is not None:
        vectors += _shifts(cells.cell, tf.gather(molecule, target), image, R.dtype)
    x, y, z = tf.unstack(vectors, axis=1)
    return tf.sqrt(x * x + y * y + z * z)  # in the host's order of operations: the same pairs at the cutoff


def _shifts(cell: tf.Tensor, molecule: tf.Tensor, image: tf.Tensor, dtype: tf.DType) -> tf.Tensor:
    """Return image @ cell in the host's order of operations, (pairs, 3)."""
    a, b, c = tf.unstack(tf.gather(tf.cast(cell, dtype), molecule), axis=1)
    i, j, k = tf.split(tf.cast(image, dtype), 3, axis=1)
    return i * a + j * b + k * c


def _images(R: tf.Tensor, molecule: tf.Tensor, cutoff: float, cells: CellTensors) -> tuple[tf.Tensor, tf.Tensor]:
    """Return the atom and the image of every point that may be within the cutoff of an atom in the cell.

    Each atom has a box of images of its own, as many in each direction as may come near: a large cell has few more
    points than atoms.
    """
    inverse = cells.inverse()  # (molecules, 3, 3)
    margin = 1.00001 * cutoff * tf.norm(inverse, axis=1) + 1e-6  # in lattice coordinates, (molecules, 3)
    f = tf.squeeze(tf.cast(R, tf.float64)[:, None] @ tf.gather(inverse, molecule), axis=1)  # (atoms, 3)
    f -= tf.gather(tf.math.unsorted_segment_min(f, molecule, tf.shape(cells.cell)[0]), molecule)  # in [0, 1)
    margin, periodic = tf.gather(margin, molecule), tf.gather(cells.pbc, molecule)
    low = tf.where(periodic, tf.math.ceil(-margin - f), 0.0)
    high = tf.where(periodic, tf.math.floor(1 + margin - f), 0.0)
    low, count = tf.cast(low, tf.int32), tf.cast(high - low + 1, tf.int32)  # (atoms, 3)
    total = tf.reduce_prod(count, axis=1)
    owner = tf.repeat(tf.range(tf.size(total)), total)  # (points,)
    number = tf.range(tf.size(owner)) - tf.gather(tf.cumsum(total, exclusive=True), owner)
    _, wide_y, wide_z = tf.unstack(tf.gather(count, owner), axis=1)
    steps = tf.stack([number // (wide_y * wide_z), number // wide_z % wide_y, number % wide_z], axis=1)
    return owner, tf.gather(low, owner) + steps


def neighbor_table_tensorflow(target: tf.Tensor, degree: tf.Tensor) -> tf.Tensor:
    """List the edges that go to each atom.

    Parameters
    ----------
    target : (edges,) int32, ascending
    degree : (atoms,) int32, number of edges that go to each atom

    Returns
    -------
    atom_edges : (atoms, max_neighbors) int32, filled up with -1

    Examples
    --------
    >>> import tensorflow as tf
    >>> from dimenet_tf.graph import neighbor_table_tensorflow
    >>> neighbor_table_tensorflow(tf.constant([0, 0, 1, 2]), tf.constant([2, 1, 1, 0])).numpy().tolist()
    [[0, 1], [2, -1], [3, -1], [-1, -1]]
    """
    first = tf.cumsum(degree, exclusive=True)
    edges = tf.range(tf.size(target))
    width = tf.reduce_max(tf.concat([degree, [0]], axis=0))
    place = target * width + edges - tf.gather(first, target)
    table = tf.tensor_scatter_nd_update(tf.fill([tf.size(degree) * width], -1), place[:, None], edges)
    return tf.reshape(table, [tf.size(degree), width])


def _find_triplets(source: tf.Tensor, reverse: tf.Tensor, degree: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    count = tf.gather(degree, source)  # edges that come into j, one of them from i
    ji = tf.repeat(tf.range(tf.size(source)), count)
    within = tf.range(tf.size(ji)) - tf.gather(tf.cumsum(count, exclusive=True), ji)
    kj = tf.gather(tf.cumsum(degree, exclusive=True), tf.gather(source, ji)) + within
    keep = kj != tf.gather(reverse, ji)
    return tf.boolean_mask(kj, keep), tf.boolean_mask(ji, keep)


def _bins(R: tf.Tensor, cutoff: float) -> tf.Tensor:
    """Return the bin of each point, (points, 3) int64; neighbors are in the same bin or in two that touch.

    Positions thousands of bins away from the origin share the outermost ones, which keeps that true.
    """
    width = 1.000001 * cutoff  # more than rounding takes from a distance
    return tf.cast(tf.clip_by_value(tf.floor(tf.cast(R, tf.float64) / width), 1 - BINS, BINS - 2), tf.int64)


def _bin_number(molecule: tf.Tensor, bins: tf.Tensor) -> tf.Tensor:
    """Return a number for each bin of each molecule, (...,) int64: one after the other along z."""
    x, y, z = tf.unstack(bins + BINS, axis=-1)
    return ((molecule * (2 * BINS) + x) * (2 * BINS) + y) * (2 * BINS) + z
