"""Sums over pairs of edges."""

import numpy as np
import pytest
import tensorflow as tf

from dimenet_tf.errors import UserError
from dimenet_tf.layers import aggregation
from dimenet_tf.layers.geometry import ANGLES, edge_vectors
from dimenet_tf.models import build_model
from helpers.models import SMALL, graph_of
from helpers.molecules import molecules


@pytest.mark.parametrize("radial_edge", ["kj", "ji"])
@pytest.mark.parametrize("angle", ANGLES)
def test_all_aggregations_are_the_same_sum(angle, radial_edge):
    rng = np.random.default_rng(0)
    model = build_model("dimenet", dtype="float64", **SMALL["dimenet"])
    triplet_model = build_model("dimenet", dtype="float64", aggregation="triplets", **SMALL["dimenet"])
    inputs = molecules("CH3CH2OH", "H2", "H", "C6H6")
    results = {}
    for name, way in aggregation.AGGREGATIONS.items():
        if name == "harmonics" and angle == "at_target":
            continue
        graph = graph_of(*inputs, triplet_model if "triplets" in way.needs else model)
        pairs = way(graph, angle, radial_edge)
        y = pairs.angular(edge_vectors(graph), model.sbf_layer)
        edges = len(graph.edge_source)
        x = tf.constant(np.random.default_rng(1).standard_normal((edges, 6)))
        radial = tf.constant(np.random.default_rng(2).standard_normal((edges, 7, 3)))
        kernel = tf.constant(rng.standard_normal((3, 6))) if not results else kernel  # noqa: F821
        results[name] = pairs.sum_outer(y, x, radial), pairs.sum_product(y, x, radial, kernel)
    for name, (outer, product) in results.items():
        assert outer.shape[1:] == (3, 6) and np.abs(outer).max() > 1
        np.testing.assert_allclose(outer, results["triplets"][0], atol=1e-12, err_msg=name)
        np.testing.assert_allclose(product, results["triplets"][1], atol=1e-12, err_msg=name)


def test_harmonics_need_the_angle_at_the_shared_atom():
    with pytest.raises(
        ValueError, match="'harmonics' needs the angle at the shared atom; .* conventions = 'corrected'"
    ):
        build_model("dimenet", aggregation="harmonics", **SMALL["dimenet"])


def test_unknown_aggregation():
    with pytest.raises(UserError, match="aggregation must be one of auto"):
        aggregation.choose_aggregation("pairs", "interior", "sum_first")
