"""Graphs: batches of molecules with their neighbor lists.

NumPy and TensorFlow have one function each that assembles a `Graph`: `build_graph_numpy` and `build_graph_tensorflow`.
"""

from dimenet_tf.graph import ingraph
from dimenet_tf.graph.build_numpy import (
    Edges,
    build_graph_numpy,
    find_edges,
    find_reverse,
    find_triplets,
    neighbor_table,
)
from dimenet_tf.graph.build_tensorflow import (
    CellTensors,
    EdgeTensors,
    build_graph_tensorflow,
    find_edges_tensorflow,
    neighbor_table_tensorflow,
)
from dimenet_tf.graph.graph import NEEDS, Graph, check_needs, graph_signature
from dimenet_tf.graph.skin import SkinList
from dimenet_tf.graph.store import GraphStore

__all__ = [
    "NEEDS",
    "CellTensors",
    "EdgeTensors",
    "Edges",
    "Graph",
    "GraphStore",
    "SkinList",
    "build_graph_numpy",
    "build_graph_tensorflow",
    "check_needs",
    "find_edges",
    "find_edges_tensorflow",
    "find_reverse",
    "find_triplets",
    "graph_signature",
    "ingraph",
    "neighbor_table",
    "neighbor_table_tensorflow",
]
