"""Graphs from TensorFlow tensors: neighbor search, index arrays, and the function that assembles a `Graph` of them.

Served models use it, which have no host to search for neighbors. Edges and their order are those of
`dimenet_tf.graph.build_numpy`.
"""

from __future__ import annotations

from collections.abc import Iterable

import tensorflow as tf

from dimenet_tf.graph.graph import Graph, check_needs

CELLS = 2**12  # to each side of the origin


def build_graph_tensorflow(
    Z: tf.Tensor,
    R: tf.Tensor,
    num_atoms: tf.Tensor,
    edges: tuple[tf.Tensor, tf.Tensor, tf.Tensor],
    cutoff: float,
    needs: Iterable[str] = (),
) -> Graph:
    """Build the `Graph` of flat tensors of atoms and their edges.

    Parameters
    ----------
    Z : (atoms,) int32, atomic numbers
    R : (atoms, 3) float32 or float64, positions in Angstrom
    num_atoms : (molecules,) int32, atoms of each molecule
    edges : edge_source, edge_target, edge_reverse, (edges,) int32 each, sorted by (target, source)
    cutoff : float, Angstrom, up to which pairs are edges
    needs : the optional arrays to make, of "atom_edges" and "triplets"; a model's `needs`

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
    source, target, reverse = edges
    atoms, needs = tf.size(Z), check_needs(needs)
    molecule = tf.repeat(tf.range(tf.size(num_atoms)), num_atoms)
    degree = tf.math.bincount(target, minlength=atoms, maxlength=atoms, dtype=tf.int32)
    kj, ji = _find_triplets(source, reverse, degree) if "triplets" in needs else ((), ())
    table = neighbor_table_tensorflow(target, degree) if "atom_edges" in needs else ()
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


def find_edges_tensorflow(R: tf.Tensor, num_atoms: tf.Tensor, cutoff: float) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Find all ordered pairs of different atoms of one molecule at most `cutoff` apart.

    Atoms are put into cells a cutoff wide, and compared with those in the cells around them. Time and memory are linear
    in the number of atoms.

    Parameters
    ----------
    R : (atoms, 3) float32 or float64, positions in Angstrom
    num_atoms : (molecules,) int32, atoms of each molecule
    cutoff : float, Angstrom. A pair at exactly the cutoff is an edge; distances are compared in the dtype of R.

    Returns
    -------
    edge_source, edge_target, edge_reverse : (edges,) int32, sorted by (target, source)

    Examples
    --------
    >>> import tensorflow as tf
    >>> from dimenet_tf.graph import find_edges_tensorflow
    >>> R = tf.constant([[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]])
    >>> [index.numpy().tolist() for index in find_edges_tensorflow(R, tf.constant([3]), 1.2)]
    [[1, 2, 0, 0], [0, 0, 1, 2], [2, 3, 0, 1]]
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
    near = tf.where((edge_lengths(R, source, target) <= tf.constant(cutoff, R.dtype)) & (source != target))[:, 0]
    return order_edges(tf.gather(source, near), tf.gather(target, near), tf.shape(R)[0])


def order_edges(source: tf.Tensor, target: tf.Tensor, num_atoms: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Sort edges by (target, source), and find the reverse of each, or some other edge where that is missing."""
    wide = tf.cast(num_atoms, tf.int64)
    key = tf.sort(tf.cast(target, tf.int64) * wide + tf.cast(source, tf.int64))
    target, source = key // wide, key % wide
    reverse = tf.minimum(tf.searchsorted(key, source * wide + target), tf.size(key) - 1)
    return tf.cast(source, tf.int32), tf.cast(target, tf.int32), reverse


def edge_lengths(R: tf.Tensor, source: tf.Tensor, target: tf.Tensor) -> tf.Tensor:
    """Return the distance of the two atoms of each edge, (edges,), Angstrom."""
    x, y, z = tf.unstack(tf.gather(R, source) - tf.gather(R, target), axis=1)
    return tf.sqrt(x * x + y * y + z * z)  # in the host's order of operations: the same pairs at the cutoff


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
