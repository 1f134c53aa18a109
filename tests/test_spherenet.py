"""SphereNet: the published implementation's numbers, torsions, the mean that replaces them, ablations."""

import numpy as np
import pytest
import tensorflow as tf
from ase.build import molecule
from conftest import SMALL, Reference, energies, graph_of, molecules, randomize

from dimenet_tf.basis import SphericalBasis
from dimenet_tf.basis.formulas import official_order
from dimenet_tf.errors import UserError
from dimenet_tf.graph import Graph
from dimenet_tf.interop import load_dig_spherenet
from dimenet_tf.interop.spherenet import from_dig
from dimenet_tf.layers.geometry import edge_vectors, perpendicular_frame, safe_norm
from dimenet_tf.layers.torsions import SphericalSums
from dimenet_tf.models import build_model
from dimenet_tf.weights import assign_weights


class SphereNetReference(Reference):
    def __init__(self, which: str) -> None:
        super().__init__("spherenet", which)

    @property
    def state(self) -> dict[str, np.ndarray]:
        return {key[2:]: self[key] for key in self.arrays.files if key.startswith("w/")}

    def model(self, dtype: str, **options) -> tf.keras.Model:
        weights, hyperparameters = from_dig(self.state, "reference")
        cutoff = self.hyperparameters["cutoff"]
        model = build_model("spherenet", dtype=dtype, cutoff=cutoff, **hyperparameters, **options)
        assign_weights(model, weights, "reference")
        return model

    def edge_order(self, graph: Graph) -> list[int]:
        """Our numbers of the reference's edges."""
        numbers = {pair: e for e, pair in enumerate(zip(graph.edge_source.numpy(), graph.edge_target.numpy()))}
        return [numbers[pair] for pair in zip(self["idx/edge_j"], self["idx/edge_i"])]


@pytest.fixture(params=["small", "basis36"])
def reference(request) -> SphereNetReference:
    return SphereNetReference(request.param)


def tensors(graph: Graph) -> Graph:
    return Graph(*map(tf.constant, graph))


def error(ours, theirs) -> float:
    return np.abs(np.asarray(ours) - theirs).max() / np.abs(theirs).max()


@pytest.mark.parametrize("dtype, tolerance", [("float64", 1e-9), ("float32", 1e-5)])
def test_energies_and_forces(reference, dtype, tolerance):
    model = reference.model(dtype)
    graph = tensors(graph_of(*reference.molecules, model))
    with tf.GradientTape() as tape:
        tape.watch(graph.positions)
        scalars = model(graph).scalars
        energy = tf.math.unsorted_segment_sum(scalars, graph.molecule_of_atom, len(reference["in/N"]))
    assert error(energy, reference["out64/E"]) < tolerance
    assert error(-tf.convert_to_tensor(tape.gradient(energy, graph.positions)), reference["out64/F"]) < tolerance


def pair_slots(graph: Graph, kj: list[int], ji: list[int]) -> tuple:
    """Where pairs of edges stand in padded arrays (atoms, k, i)."""
    slot = {e: (j, a) for j, row in enumerate(graph.atom_edges.numpy()) for a, e in enumerate(row) if e >= 0}
    reverse = graph.edge_reverse.numpy()
    return tuple(np.array([(*slot[k], slot[reverse[i]][1]) for k, i in zip(kj, ji)]).T)


def test_intermediates(reference):
    model = reference.model("float64")
    graph = tensors(graph_of(*reference.molecules, model))
    order = np.array(reference.edge_order(graph))
    vectors = edge_vectors(graph)
    distance = safe_norm(vectors)
    rbf, sbf = model.rbf_layer(distance), model.sbf_layer.radial(distance)
    sums = SphericalSums(graph, vectors, model.sbf_layer, "next")
    found = {"dist": distance.numpy()[order], "rbf": rbf.numpy()[order]}

    kj, ji = order[reference["idx/idx_kj"]], order[reference["idx/idx_ji"]]
    L, slots = model.num_spherical, pair_slots(graph, kj, ji)
    found["sbf"] = (sums.angular.numpy()[slots][:, :, None] * sbf.numpy()[kj]).reshape(len(kj), -1)
    m = np.array([m for degree in range(L) for m in range(-degree, degree + 1)])
    harmonics = (-1.0) ** m * sums.harmonics.numpy()[slots]
    tbf = harmonics[:, :, None] * sbf.numpy()[kj][:, model.bessel_degrees]
    found["tbf"] = np.empty_like(tbf)
    found["tbf"][:, official_order(L)] = tbf
    found["tbf"] = found["tbf"].reshape(len(kj), -1)

    m = model.emb_block(rbf, graph)
    found |= {"e1_init": m.numpy()[order], "v_atom_0": model.output_blocks[0](m, rbf, graph)}
    tbf = tf.gather(sbf, model.bessel_degrees, axis=1)
    for b, block in enumerate(model.int_blocks):
        m, output = block(m, rbf, sbf, tbf, sums), model.output_blocks[b + 1]
        found |= {f"e1_int_{b}": m.numpy()[order], f"v_atom_{b + 1}": output(m, rbf, graph)}
        found[f"e2_int_{b}"] = (output.dense_rbf(rbf) * m).numpy()[order]
    stored = {key for key in reference.arrays.files if key.startswith("mid64/")}
    assert {f"mid64/{key}" for key in (*found, "angle", "torsion", "e2_init")} == stored
    for key, ours in found.items():
        assert error(reference.rows(key, np.asarray(ours)), reference[f"mid64/{key}"]) < 1e-9, key


def test_published_sizes():
    for options, parameters in (({}, 1_898_566), ({"num_spherical": 3}, 1_890_118)):
        assert build_model("spherenet", **options).count_params() == parameters


def places(R: np.ndarray, k: int, j: int, i: int) -> complex:
    """Where k is around the axis j -> i, sin(theta) exp(i azimuth)."""
    axis, to_k = ((v / np.linalg.norm(v)) for v in (R[i] - R[j], R[k] - R[j]))
    aside = np.cross(axis, np.array([0.3, -0.5, 0.8]))
    aside /= np.linalg.norm(aside)
    return to_k @ aside + 1j * (to_k @ np.cross(axis, aside))


def torsion(R: np.ndarray, neighbors: list[int], k: int, j: int, i: int, backwards: bool) -> float:
    """Smallest turn from k to another neighbor, or from another neighbor to k; a full one if there is none."""
    others = [q for q in neighbors if q not in (k, i)]
    turns = [np.angle(places(R, q, j, i) / places(R, k, j, i)) % (2 * np.pi) for q in others]
    return min([2 * np.pi, *((2 * np.pi - turn) if backwards else turn for turn in turns)])


def shaken(name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    N, Z, R = molecules(name)
    return N, Z, R + 0.1 * np.random.default_rng(1).standard_normal(R.shape)


@pytest.mark.parametrize("rule", ["next", "previous", "smooth"])
def test_torsions_one_by_one(rule):
    """Against loops over k, i and q; the published torsions about an axis add up to a full turn."""
    N, Z, R = shaken("CH3CH2OH")
    L, cutoff = 4, 2.6
    model = build_model("spherenet", dtype="float64", **{**SMALL["spherenet"], "cutoff": cutoff, "num_spherical": L})
    graph = tensors(graph_of(N, Z, R, model))
    sums = SphericalSums(graph, edge_vectors(graph), model.sbf_layer, rule)
    source, target = graph.edge_source.numpy(), graph.edge_target.numpy()
    u = {d: float(model.sbf_layer.envelope(tf.constant(d / cutoff))) if False else d for d in ()}
    assert u == {}
    checked = 0
    for ji, (j, i) in enumerate(zip(source, target)):
        neighbors = source[target == j].tolist()
        turns = []
        for kj in np.flatnonzero(target == j):
            k = source[kj]
            if k == i:
                continue
            slots = tuple(index[0] for index in pair_slots(graph, [kj], [ji]))
            ours = sums.harmonics.numpy()[slots]
            z, cos = places(R, k, j, i), np.dot(R[k] - R[j], R[i] - R[j])
            cos /= np.linalg.norm(R[k] - R[j]) * np.linalg.norm(R[i] - R[j])
            if rule == "smooth":
                others = [q for q in neighbors if q not in (k, i)]
                w = [envelope(np.linalg.norm(R[q] - R[j]) / cutoff) for q in others]
                around = [1.0] + [
                    sum(w_q * (np.conj(z) ** m * places(R, q, j, i) ** m).real for w_q, q in zip(w, others))
                    / (1 + sum(w))
                    for m in range(1, L)
                ]
                expected = [polar(degree, m, cos) * around[m] for degree in range(L) for m in range(degree + 1)]
            else:
                turns.append(torsion(R, neighbors, k, j, i, backwards=rule == "previous"))
                c = abs(z) * np.exp(1j * turns[-1])
                parts = [(c ** abs(m)).real if m >= 0 else (c**-m).imag for m in range(-L + 1, L)]
                expected = [
                    polar(degree, abs(m), cos) * parts[m + L - 1]
                    for degree in range(L)
                    for m in range(-degree, degree + 1)
                ]
            np.testing.assert_allclose(ours, expected, rtol=1e-9, atol=1e-9)
            checked += 1
        if turns:
            assert sum(turns) == pytest.approx(2 * np.pi)
    assert checked > 100
