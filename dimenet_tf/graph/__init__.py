"""What a batch of molecules is, and how its neighbors are found."""

from dimenet_tf.graph import ingraph
from dimenet_tf.graph.graph import NEEDS, Graph, check_needs, graph_signature
from dimenet_tf.graph.neighbors import find_edges, find_reverse, find_triplets, neighbor_table
from dimenet_tf.graph.skin import SkinList
from dimenet_tf.graph.store import GraphStore

__all__ = [
    "NEEDS",
    "Graph",
    "GraphStore",
    "SkinList",
    "check_needs",
    "find_edges",
    "find_reverse",
    "find_triplets",
    "graph_signature",
    "ingraph",
    "neighbor_table",
]
