"""DPGN: what has no reference implementation, against loops; options of its Table III."""

import numpy as np
import pytest
import tensorflow as tf
from ase.build import molecule

from dimenet_tf.errors import UserError
from dimenet_tf.layers.geometry import edge_vectors, safe_norm
from dimenet_tf.layers.nonlocal_blocks import PBlock
from dimenet_tf.layers.torsions import SphericalSums
from dimenet_tf.md.measurements import cutoff
from dimenet_tf.models import build_model
from dimenet_tf.models.dpgn import DPGN
from dimenet_tf.models.hyperparameters import hyperparameters
from dimenet_tf.predictor import Predictor
from dimenet_tf.predictor.weights import named_variables
from dimenet_tf.properties.heads import scalar_head
from helpers.models import SMALL, energies, graph_of, randomize
from helpers.molecules import molecules
from helpers.numerics import place, real_harmonic


def make(dtype: str = "float64", **options) -> tf.keras.Model:
    return randomize(build_model("dpgn", dtype=dtype, **{**SMALL["dpgn"], **options}))


def swish(x: np.ndarray) -> np.ndarray:
    return x / (1 + np.exp(-x))


def projected(values: np.ndarray, *layers) -> np.ndarray:
    for layer in layers:
        values = values @ layer.kernel.numpy()
    return values


@pytest.mark.parametrize("bilinear", [True, False])
def test_sums_are_those_of_quadruplets(bilinear):
    """One k -> j -> i after the other, with its angle, and its torsion from the neighbor q of j before it."""
    model = make(bilinear=bilinear)
    N, Z, R = molecules("CH3CH2OH")
    R = R + 0.1 * np.random.default_rng(1).standard_normal(R.shape)
    graph = graph_of(N, Z, R, model).to_tensors()
    vectors, block, L = edge_vectors(graph), model.int_blocks[0], model.num_spherical
    bases = model.bases(safe_norm(vectors))
    sums = SphericalSums(graph, vectors, model.sbf_layer, model.torsion_rule)
    x = np.random.default_rng(0).standard_normal((len(vectors), model.int_emb_size))
    found = block.sum_over_neighbors(tf.constant(x), bases, sums)

    radial = bases.cbf.numpy()  # (edges, num_spherical, num_radial)
    source, target = graph.edge_source.numpy(), graph.edge_target.numpy()
    expected = np.zeros_like(x)
    for ji, (j, i) in enumerate(zip(source, target)):
        incoming = np.flatnonzero((target == j) & (source != i))
        azimuths = [place(R, k, j, i)[1] for k in source[incoming]]
        for kj, azimuth in zip(incoming, azimuths):
            theta, _ = place(R, source[kj], j, i)
            torsion = min((azimuth - other) % (2 * np.pi) or 2 * np.pi for other in azimuths)
            circular = np.concatenate([real_harmonic(n, 0, theta, 0) * radial[kj, n] for n in range(L)])
            spherical = np.concatenate(
                [real_harmonic(n, m, theta, torsion) * radial[kj, n] for n in range(L) for m in range(-n, n + 1)]
            )
            x_kj = projected(circular, block.dense_cbf1, block.dense_cbf2) * x[kj]
            if bilinear:
                expected[ji] += np.einsum("b,obf,f->o", projected(spherical, block.dense_sbf), block.bilinear, x_kj)
            else:
                expected[ji] += projected(spherical, block.dense_sbf1, block.dense_sbf2) * x_kj
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-11)


def test_exchange_is_a_sum_over_all_pairs_up_to_the_global_cutoff():
    model = make()
    N, Z, R = molecules("CH3CH2OH", "H2", "H")
    graph = graph_of(N, Z, R, model).to_tensors()
    block, far = model.nonlocal_blocks[0], model.global_edges(graph)
    rng = np.random.default_rng(0)
    v, m = (rng.standard_normal((len(rows), model.emb_size)) for rows in (Z, graph.edge_source))
    bases = model.bases(safe_norm(edge_vectors(graph)))
    found = block(tf.constant(v), tf.constant(m), bases.rbf, far, graph)

    a = v.copy()
    weights = projected(bases.rbf.numpy(), block.dense_rbf1, block.dense_rbf2)
    for e, i in enumerate(graph.edge_target.numpy()):
        a[i] += weights[e] * m[e]
    sent = swish(projected(a, block.down_projection) + block.down_projection.bias)
    g, c, pairs = np.zeros_like(sent), model.global_cutoff, 0
    for i in range(len(Z)):
        for j in np.flatnonzero(graph.molecule_of_atom.numpy() == graph.molecule_of_atom[i]):
            d = np.linalg.norm(R[i] - R[j])
            if 0 < d < c:
                envelope = 1 - 28 * (d / c) ** 6 + 48 * (d / c) ** 7 - 21 * (d / c) ** 8
                rbf = (
                    np.sqrt(2 / c) * np.sin(np.arange(1, model.num_radial + 1) * np.pi * d / c) / d * envelope
                )  # Eq. 4
                g[i] += projected(rbf, block.dense_global1, block.dense_global2) * sent[j]
                pairs += 1
    expected = swish(projected(np.concatenate([a, g], axis=1), block.unify) + block.unify.bias)
    np.testing.assert_allclose(found, expected, rtol=1e-10)
    assert pairs == len(far.source) > len(graph.edge_source)


def activated(x: np.ndarray, layer) -> np.ndarray:
    return swish(projected(x, layer) + (0 if layer.bias is None else layer.bias.numpy()))


def p_block(x: np.ndarray, block: PBlock) -> np.ndarray:
    """x + W [m1(x) * m2(x), m3(x)]."""
    m1, m2, m3 = (
        projected(activated(x, layer.dense_1), layer.dense_2) + layer.dense_2.bias
        for layer in (block.m1, block.m2, block.m3)
    )
    return x + projected(np.concatenate([m1 * m2, m3], axis=1), block.dense_out)


@pytest.mark.parametrize("p_blocks", [True, False])
def test_interaction_block(p_blocks):
    """Gates, what the atoms know, residual layers and P-block, one after the other."""
    model = make(p_blocks=p_blocks)
    graph = graph_of(*molecules("CH3CH2OH"), model).to_tensors()
    vectors, block, rng = edge_vectors(graph), model.int_blocks[0], np.random.default_rng(0)
    bases = model.bases(safe_norm(vectors))
    sums = SphericalSums(graph, vectors, model.sbf_layer, model.torsion_rule)
    m, v = (rng.standard_normal((count, model.emb_size)) for count in (len(vectors), 9))
    found = block(tf.constant(m), tf.constant(v), bases, sums, graph)

    x_kj = activated(m, block.dense_kj) * projected(bases.rbf.numpy(), block.dense_rbf1, block.dense_rbf2)
    x_kj = activated(x_kj, block.down_projection)
    local = block.sum_over_neighbors(tf.constant(x_kj), bases, sums).numpy()
    both = v[graph.edge_source.numpy()], v[graph.edge_target.numpy()]
    kernel = np.concatenate([w.kernel for w in (block.up_projection, block.dense_source, block.dense_target)])
    y = activated(m, block.dense_ji) + swish(np.concatenate([local, *both], axis=1) @ kernel)
    for layer in block.layers_before_skip:
        y = y + activated(activated(y, layer.dense_1), layer.dense_2)
    expected = m + activated(y, block.final_before_skip)
    for layer in block.layers_after_skip:
        expected = expected + activated(activated(expected, layer.dense_1), layer.dense_2)
    if p_blocks:
        expected = p_block(expected, block.p_block)
    np.testing.assert_allclose(found, expected, rtol=1e-10)


@pytest.mark.parametrize("global_embedding", [True, False])
def test_blocks_follow_each_other(global_embedding):
    """First messages (Eq. 8), then edges, atoms and molecule by turns (Eq. 7)."""
    model = make(global_embedding=global_embedding)
    N, Z, R = molecules("CH3CH2OH")
    graph = graph_of(N, Z, R, model).to_tensors()
    vectors = edge_vectors(graph)
    distance = safe_norm(vectors)
    bases, far = model.bases(distance), model.global_edges(graph)
    sums = SphericalSums(graph, vectors, model.sbf_layer, model.torsion_rule)
    rbf, embedding = bases.rbf.numpy(), model.emb_block
    if global_embedding:
        ends = far.source.numpy() * len(Z) + far.target.numpy()
        here = np.searchsorted(np.sort(ends), graph.edge_source.numpy() * len(Z) + graph.edge_target.numpy())
        rbf = np.concatenate([rbf, far.rbf.numpy()[np.argsort(ends)[here]]], axis=1)
    v0 = embedding.embeddings.numpy()[Z]
    both = v0[graph.edge_target.numpy()], v0[graph.edge_source.numpy()]
    m0 = activated(np.concatenate([*both, projected(rbf, embedding.dense_rbf)], axis=1), embedding.dense)
    m1 = model.int_blocks[0](tf.constant(m0), tf.constant(v0), bases, sums, graph)
    v1 = model.nonlocal_blocks[0](tf.constant(v0), m1, bases.rbf, far, graph)
    m2 = model.int_blocks[1](m1, v1, bases, sums, graph)
    v2 = model.nonlocal_blocks[1](v1, m2, bases.rbf, far, graph)
    outputs = [block(tf.constant(m), bases.rbf, graph) for block, m in zip(model.output_blocks, (m0, m1, m2))]
    expected = sum(outputs) + model.nonlocal_output(v2, None, graph)
    np.testing.assert_allclose(model(graph).scalars, expected, rtol=1e-10)


def test_p_block():
    block = PBlock(5, seed=1, dtype="float64")
    rng = np.random.default_rng(0)
    x = rng.standard_normal((3, 5))
    np.testing.assert_array_equal(block(tf.constant(x)), x)  # at the start
    block.dense_out.kernel.assign(rng.standard_normal((5, 5)))
    np.testing.assert_allclose(block(tf.constant(x)), p_block(x, block), rtol=1e-12)
    assert [layer.dense_2.units for layer in (block.m1, block.m2, block.m3)] == [2, 2, 3]


def test_atoms_without_neighbors_interact_up_to_the_global_cutoff():
    """Without a local edge there is no message: only the exchange between atoms is left."""
    model, Z = make(), np.array([6, 1])

    def energy(distance: float) -> float:
        return energies(model, [2], Z, np.array([[0, 0, 0], [0, 0, distance]]))[0, 0]

    alone, reach = energy(100.0), model.global_cutoff
    assert model.cutoff < 3.5 < reach
    assert abs(energy(3.5) - alone) > 1e-4 * abs(alone)
    assert energy(reach + 1e-9) == alone == energy(reach + 1)
    slopes = [(energy(reach - h) - alone) / h for h in (0.02, 0.01)]
    assert abs(slopes[1]) < abs(slopes[0]) / 3  # the envelope ends as (1 - x)^3


def test_certificates_look_at_both_cutoffs():
    head = scalar_head(["energy"], ["eV"], np.zeros((1, 95)), [0.0], [0.01])
    options = {**SMALL["dpgn"], "torsion": "none", "bilinear": False, "p_blocks": False, "num_blocks": 1}
    smooth, hard = (Predictor("dpgn", options, head, [1, 6, 8], "float64", energy="energy") for _ in range(2))
    hard.model.global_rbf_layer.envelope = lambda x: 1 / x
    for predictor in (smooth, hard):
        randomize(predictor.model)
        result = cutoff(predictor, molecule("H2O"))
        failed = any(entry["value"] > entry["bound"] for entry in result.values())
        assert failed == (predictor is hard)


def test_table_3():
    """Its steps from MPNet on: what each adds to the weights."""
    options, variables, sizes = SMALL["dpgn"], [], []
    mpnet = {"global_embedding": True, "torsion": "none", "bilinear": False, "p_blocks": False}
    for step in (mpnet, {"global_embedding": False}, {"torsion": "published"}, {"bilinear": True}, {"p_blocks": True}):
        options = {**options, **step}
        model = build_model("dpgn", **options)
        variables.append(set(named_variables(model)))
        sizes.append(model.count_params())
    gained = [{name.split("/")[2] for name in after - before} for before, after in zip(variables, variables[1:])]
    assert gained == [set(), {"dense_sbf1", "dense_sbf2"}, {"dense_sbf", "bilinear"}, {"p_block"}]
    assert options.items() >= {key: hyperparameters(DPGN)[key] for key in mpnet}.items()
    per_block = [(after - before) / 2 for before, after in zip(sizes, sizes[1:])]
    torsion, bilinear = 16 * 4 * 4 + 4 * 8, 16 * 4 * (6 - 4) + 6 * 8 * 8 - 4 * 8
    assert per_block == [-4 * 16 / 2, torsion, bilinear, 3 * ((16 + 1) * 8 + (8 + 1) * 8) + 16 * 16]


def test_impossible_combinations_are_refused():
    with pytest.raises(UserError, match="bilinear has no use without torsion"):
        build_model("dpgn", torsion="none")
    with pytest.raises(UserError, match=r"global_cutoff = 4\.0 must be at least the cutoff, 5\.0"):
        build_model("dpgn", global_cutoff=4.0)
