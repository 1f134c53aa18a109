"""The published implementations' numbers."""

import numpy as np
import pytest
import tensorflow as tf

from dimenet_tf.basis import SphericalBasis
from dimenet_tf.layers.geometry import cos_angle, edge_vectors, safe_norm
from dimenet_tf.properties.heads import scalar_head
from helpers.models import graph_of
from helpers.references import Reference

FILES = [("dimenet", "small"), ("dimenet", "basis76"), ("dimenet_pp", "small"), ("dimenet_pp", "basis76")]


@pytest.fixture(params=FILES, ids="-".join)
def reference(request) -> Reference:
    return Reference(*request.param)


def relative_error(ours, theirs) -> float:
    return np.abs(np.asarray(ours) - theirs).max() / np.abs(theirs).max()


def outputs_and_forces(reference: Reference, dtype: str, aggregation: str):
    """(molecules, targets) outputs and (targets, atoms, 3) forces."""
    model = reference.model(dtype, aggregation=aggregation)
    graph = graph_of(*reference.molecules, model)
    positions = tf.constant(graph.positions)
    targets = model.num_targets
    names, zeros, ones = list(map(str, range(targets))), [0.0] * targets, [1.0] * targets
    head = scalar_head(names, [""] * targets, np.zeros((targets, 95)), zeros, ones, model.extensive)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(positions)
        graph = graph._replace(positions=positions)
        P, _ = head.values(head.shares(model(graph), graph), graph)
        totals = tf.unstack(tf.reduce_sum(P, axis=0))
    forces = [-tf.convert_to_tensor(tape.gradient(total, positions)) for total in totals]
    return P.numpy(), np.stack(forces)


def test_index_arrays(reference):
    model = reference.model("float32", aggregation="triplets")
    graph = graph_of(*reference.molecules, model)
    np.testing.assert_array_equal(graph.edge_target, reference["idx/idnb_i"])
    np.testing.assert_array_equal(graph.edge_source, reference["idx/idnb_j"])
    np.testing.assert_array_equal(graph.triplet_kj, reference["idx/id_expand_kj"])
    np.testing.assert_array_equal(graph.triplet_ji, reference["idx/id_reduce_ji"])
    np.testing.assert_array_equal(graph.molecule_of_atom, reference["idx/batch_seg"])


@pytest.mark.parametrize("aggregation", ["triplets", "sum_first"])
@pytest.mark.parametrize("dtype, tolerance, force_tolerance", [("float64", 1e-9, 1e-9), ("float32", 1e-5, 1e-5)])
def test_outputs_and_forces(reference, dtype, tolerance, force_tolerance, aggregation):
    outputs, forces = outputs_and_forces(reference, dtype, aggregation)
    assert relative_error(outputs, reference["out64/P"]) < tolerance
    assert relative_error(forces, reference["out64/F"]) < force_tolerance


@pytest.mark.parametrize("dtype, tolerance", [("float64", 1e-9), ("float32", 1e-5)])
def test_intermediates(reference, dtype, tolerance):
    model = reference.model(dtype, aggregation="triplets")
    graph = graph_of(*reference.molecules, model)
    is_pp = reference.name == "dimenet_pp"

    vectors = edge_vectors(graph)
    d = safe_norm(vectors)
    rbf, radial = model.rbf_layer(d), model.sbf_layer.radial(d)
    v_kj, v_ji = tf.gather(vectors, graph.triplet_kj), tf.gather(vectors, graph.triplet_ji)
    angle = "supplement" if is_pp else "at_target"
    cosine = cos_angle(angle, v_kj, v_ji)
    sbf = model.sbf_layer((tf.gather(d, graph.triplet_kj), cosine))
    assert relative_error(d, reference["mid64/Dij"]) < tolerance
    assert relative_error(rbf, reference["mid64/rbf"]) < tolerance
    assert relative_error(cosine, np.cos(reference["mid64/angle"])) < tolerance
    assert relative_error(reference.rows("sbf", sbf.numpy()), reference["mid64/sbf"]) < tolerance

    pairs = model.aggregation_class(graph, angle)
    y = pairs.angular(vectors, model.sbf_layer)
    m = model.emb_block(rbf, graph)
    assert relative_error(reference.rows("x_emb", m.numpy()), reference["mid64/x_emb"]) < tolerance
    for b, output in enumerate(model.output_blocks):
        assert relative_error(output(m, rbf, graph), reference[f"mid64/P_atom_{b}"]) < tolerance
        if b < model.num_blocks:
            m = model.int_blocks[b](m, rbf, radial, y, pairs, *([] if is_pp else [graph]))
            assert relative_error(reference.rows(f"x_int_{b}", m.numpy()), reference[f"mid64/x_int_{b}"]) < tolerance


def test_this_float32_basis_is_more_accurate_than_the_references():
    """The reference's closed formulas err by up to 7e-4 at values up to 28."""
    file = Reference("dimenet", "basis76")
    d, angle = file["mid64/Dij"], file["mid64/angle"]
    kj = file["idx/id_expand_kj"]
    basis = SphericalBasis(7, 6, 5.0, over_x=True)
    inputs = tf.constant(d[kj], tf.float32), tf.constant(np.cos(angle), tf.float32)
    error = np.abs(file.rows("sbf", basis(inputs).numpy()) - file["mid64/sbf"]).max()
    assert error < 7e-4 / 10


def test_published_sizes():
    from dimenet_tf.models import build_model

    assert build_model("dimenet").count_params() == 2_100_070
    assert build_model("dimenet_pp").count_params() == 1_885_830
