"""Each point in which the released code deviates from the paper, on its own (docs/conventions.md)."""

import numpy as np
import pytest
import tensorflow as tf

from dimenet_tf.basis import SphericalBasis
from dimenet_tf.layers.geometry import edge_vectors, safe_norm
from dimenet_tf.models import build_model
from helpers.models import SMALL, graph_of, randomize
from helpers.molecules import molecules


def models(name):
    return [
        randomize(build_model(name, dtype="float64", conventions=c, **SMALL[name])) for c in ("official", "corrected")
    ]


def test_one_over_x_in_the_two_dimensional_basis(model_name):
    official, corrected = models(model_name)
    d = tf.constant([0.7, 1.5, 4.2], tf.float64)
    a, b = official.sbf_layer.radial(d).numpy(), corrected.sbf_layer.radial(d).numpy()
    np.testing.assert_allclose(a, b / (d.numpy() / 5.0)[:, None, None], rtol=1e-12)
    # the radial basis has it in both: there it belongs to the formula
    np.testing.assert_allclose(official.rbf_layer(d), corrected.rbf_layer(d))


def test_embedding_of_the_radial_basis(model_name):
    official, corrected = models(model_name)
    rbf = tf.constant(np.random.default_rng(0).standard_normal((5, 6)))
    linear, active = corrected.emb_block.dense_rbf, official.emb_block.dense_rbf
    np.testing.assert_allclose(linear(2 * rbf), 2 * linear(rbf), rtol=1e-12)
    assert not linear.use_bias and active.use_bias
    pre = rbf @ active.kernel + active.bias
    np.testing.assert_allclose(active(rbf), pre * tf.sigmoid(pre), rtol=1e-12)


def test_angle_of_dimenet():
    """Direction of k seen from i (released) and from j (paper), which differ in a bent molecule."""
    official, corrected = models("dimenet")
    positions = np.array([[0.0, 0, 0], [1.2, 0, 0], [1.2, 1.2, 0]])  # i, j, k: 90 degrees at j, 45 at i
    graph = graph_of([3], [1, 8, 1], positions, official)
    harmonic = []
    for model in (official, corrected):
        pairs = model.aggregation_class(graph, model.angle)
        y = pairs.angular(edge_vectors(graph), SphericalBasis(2, 1, 5.0, dtype="float64"))
        edge_kj = int(np.flatnonzero((graph.edge_source == 2) & (graph.edge_target == 1))[0])
        edge_ij = int(np.flatnonzero((graph.edge_source == 0) & (graph.edge_target == 1))[0])
        row = graph.atom_edges[1].tolist()
        harmonic.append(float(y[1, row.index(edge_kj), row.index(edge_ij), 1]) / np.sqrt(3 / (4 * np.pi)))
    assert harmonic == pytest.approx([np.sqrt(0.5), 0.0], abs=1e-12)


def changed_messages(model, name, perturb):
    """Which edges' messages change in the first interaction block when one edge's basis does, (edges,) bool."""
    graph = graph_of(*molecules("CH3CH2OH"), model)
    vectors = edge_vectors(graph)
    d = safe_norm(vectors)
    angle = model.angle if name == "dimenet" else "supplement"
    edge_option = [] if name == "dimenet" else [model.radial_edge]
    pairs = model.aggregation_class(graph, angle, *edge_option)
    y = pairs.angular(vectors, model.sbf_layer)
    m = tf.constant(np.random.default_rng(0).standard_normal((len(d), model.emb_size)))
    results = []
    for factor in (1.0, 1.5):
        scale = tf.constant(np.where(np.arange(len(d)) == 7, factor, 1.0))
        rbf, radial = model.rbf_layer(d), model.sbf_layer.radial(d)
        if perturb == "rbf":
            rbf *= scale[:, None]
        else:
            radial *= scale[:, None, None]
        results.append(model.int_blocks[0](m, rbf, radial, y, pairs, *([graph] if name == "dimenet" else [])).numpy())
    following = (graph.edge_source == graph.edge_target[7]) & (graph.edge_target != graph.edge_source[7])
    return np.abs(results[0] - results[1]).max(axis=1) > 1e-12, following


@pytest.mark.parametrize(
    "name, perturb, conventions, own_edge",
    [
        ("dimenet", "rbf", "official", False),  # rbf(d_kj) weights the message kj
        ("dimenet", "rbf", "corrected", True),  # rbf(d_ji), Eq. 4
        ("dimenet", "radial", "official", False),
        ("dimenet", "radial", "corrected", False),  # a_SBF(d_kj, angle), Eq. 4
        ("dimenet_pp", "rbf", "official", False),
        ("dimenet_pp", "rbf", "corrected", False),
        ("dimenet_pp", "radial", "official", False),
        ("dimenet_pp", "radial", "corrected", True),  # the authors' advice
    ],
)
def test_which_distance_enters_the_interaction(name, perturb, conventions, own_edge):
    model = models(name)[conventions == "corrected"]
    changed, following = changed_messages(model, name, perturb)
    expected = np.arange(len(changed)) == 7 if own_edge else following
    np.testing.assert_array_equal(changed, expected)
