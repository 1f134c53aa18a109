"""SphereNet: the published implementation's numbers, torsions, the mean that replaces them, ablations."""

import numpy as np
import pytest
import tensorflow as tf
from ase.build import molecule
from scipy.spatial.transform import Rotation

from dimenet_tf.basis import SphericalBasis
from dimenet_tf.basis.formulas import official_order
from dimenet_tf.errors import UserError
from dimenet_tf.graph import Graph
from dimenet_tf.interop import load_dig_spherenet
from dimenet_tf.interop.spherenet import from_dig
from dimenet_tf.layers.aggregation import SumFirst
from dimenet_tf.layers.geometry import edge_vectors, perpendicular_frame, safe_norm
from dimenet_tf.layers.torsions import SphericalSums
from dimenet_tf.models import build_model
from dimenet_tf.predictor.weights import assign_weights, named_variables
from dimenet_tf.structures.quantities import conversion
from helpers.models import SMALL, energies, graph_of, randomize
from helpers.molecules import molecules
from helpers.numerics import error, place, real_harmonic
from helpers.references import Reference


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


@pytest.fixture(params=["small", "basis36", "basis76"])
def reference(request) -> SphereNetReference:
    return SphereNetReference(request.param)


@pytest.mark.parametrize("dtype, tolerance", [("float64", 1e-9), ("float32", 1e-5)])
def test_energies_and_forces(reference, dtype, tolerance):
    model = reference.model(dtype)
    graph = graph_of(*reference.molecules, model).to_tensors()
    with tf.GradientTape() as tape:
        tape.watch(graph.positions)
        scalars = model(graph).scalars
        energy = tf.math.unsorted_segment_sum(scalars, graph.molecule_of_atom, len(reference["in/N"]))
    assert error(energy, reference["out64/E"]) < tolerance
    assert error(-tf.convert_to_tensor(tape.gradient(energy, graph.positions)), reference["out64/F"]) < tolerance


def pair_slots(graph: Graph, kj: list[int], ji: list[int]) -> tuple:
    """Positions of pairs of edges in padded arrays (atoms, k, i)."""
    slot = {e: (j, a) for j, row in enumerate(graph.atom_edges.numpy()) for a, e in enumerate(row) if e >= 0}
    reverse = graph.edge_reverse.numpy()
    return tuple(np.array([(*slot[k], slot[reverse[i]][1]) for k, i in zip(kj, ji)]).T)


def test_intermediates(reference):
    model = reference.model("float64")
    graph = graph_of(*reference.molecules, model).to_tensors()
    order = np.array(reference.edge_order(graph))
    vectors = edge_vectors(graph)
    distance = safe_norm(vectors)
    rbf, sbf = model.rbf_layer(distance), model.sbf_layer.radial(distance)
    sums = SphericalSums(graph, vectors, model.sbf_layer, "next")
    found = {"dist": distance.numpy()[order], "rbf": rbf.numpy()[order]}

    kj, ji = order[reference["idx/idx_kj"]], order[reference["idx/idx_ji"]]
    L, slots = model.num_spherical, pair_slots(graph, kj, ji)
    found["sbf"] = (sums.zonal.numpy()[slots][:, :, None] * sbf.numpy()[kj]).reshape(len(kj), -1)
    m = np.array([m for degree in range(L) for m in range(-degree, degree + 1)])
    harmonics = (-1.0) ** m * sums.harmonics.numpy()[slots]
    tbf = harmonics[:, :, None] * sbf.numpy()[kj][:, model.bessel_degrees]
    found["tbf"] = np.empty_like(tbf)
    found["tbf"][:, official_order(L)] = tbf
    found["tbf"] = found["tbf"].reshape(len(kj), -1)

    m = model.emb_block(rbf, graph)
    found |= {"e1_init": m.numpy()[order], "v_atom_0": model.output_blocks[0](m, rbf, graph)}
    found["e2_init"] = (model.output_blocks[0].dense_rbf(rbf) * m).numpy()[order]
    tbf = tf.gather(sbf, model.bessel_degrees, axis=1)
    for b, block in enumerate(model.int_blocks):
        m, output = block(m, rbf, sbf, tbf, sums), model.output_blocks[b + 1]
        found |= {f"e1_int_{b}": m.numpy()[order], f"v_atom_{b + 1}": output(m, rbf, graph)}
        found[f"e2_int_{b}"] = (output.dense_rbf(rbf) * m).numpy()[order]
    stored = {key for key in reference.arrays.files if key.startswith("mid64/")}
    assert {f"mid64/{key}" for key in (*found, "angle", "torsion")} == stored
    for key, ours in found.items():
        assert error(reference.rows(key, np.asarray(ours)), reference[f"mid64/{key}"]) < 1e-9, key


def test_conventions_of_the_bases():
    """Released: no envelope; the degree of a Bessel function is its harmonic's place in the list modulo the degrees."""
    options = {**SMALL["spherenet"], "num_spherical": 3}
    official, corrected = (
        build_model("spherenet", dtype="float64", conventions=c, **options) for c in ("official", "corrected")
    )
    d = tf.constant([0.7, 1.5, 2.9], tf.float64)
    enveloped = official.sbf_layer.radial(d) * corrected.sbf_layer.envelope(d / 3.0)[:, None, None]
    np.testing.assert_allclose(enveloped, corrected.sbf_layer.radial(d), rtol=1e-12)
    assert np.abs(official.sbf_layer.radial(d)[-1]).max() > 100 * np.abs(corrected.sbf_layer.radial(d)[-1]).max()
    assert official.bessel_degrees.tolist() == [0, 0, 1, 2, 1, 2, 1, 2, 0]
    assert corrected.bessel_degrees.tolist() == [0, 1, 1, 1, 2, 2, 2, 2, 2]


def test_published_sizes():
    for options, parameters in (({}, 1_898_566), ({"num_spherical": 3}, 1_890_118)):
        assert build_model("spherenet", **options).count_params() == parameters


@pytest.mark.parametrize("rule", ["next", "previous", "smooth"])
def test_harmonics_one_by_one(rule):
    """Against loops over k, i and q; the published torsions about an axis add up to a full turn."""
    N, Z, R = molecules("CH3CH2OH")
    R = R + 0.1 * np.random.default_rng(1).standard_normal(R.shape)
    basis, L = SphericalBasis(4, 1, cutoff=2.6, dtype="float64"), 4
    model = build_model("spherenet", dtype="float64", **{**SMALL["spherenet"], "cutoff": basis.cutoff})
    graph = graph_of(N, Z, R, model).to_tensors()
    harmonics = SphericalSums(graph, edge_vectors(graph), basis, rule).harmonics.numpy()
    of_atom = [graph.edge_source.numpy()[graph.edge_target == j] for j in range(len(Z))]
    for j, neighbors in enumerate(of_atom):
        weights = basis.envelope(tf.constant(np.linalg.norm(R[neighbors] - R[j], axis=1) / basis.cutoff)).numpy()
        for slot_i, i in enumerate(neighbors):
            turns = []
            for slot_k, k in enumerate(neighbors):
                if k == i:
                    continue
                theta, azimuth = place(R, k, j, i)
                others = [(*place(R, q, j, i), w) for q, w in zip(neighbors, weights) if q not in (k, i)]
                if rule == "smooth":
                    total = 1 + sum(w for _, _, w in others)
                    mean = [
                        sum(w * np.sin(t) ** m * np.cos(m * (a - azimuth)) for t, a, w in others) / total
                        for m in range(L)
                    ]
                    mean[0] = 1
                    expected = [real_harmonic(n, m, theta, 0) * mean[m] for n in range(L) for m in range(n + 1)]
                else:
                    after = [(a - azimuth) % (2 * np.pi) for _, a, _ in others]
                    turns.append(min(2 * np.pi, *after) if rule == "next" else 2 * np.pi - max(0, *after))
                    expected = [real_harmonic(n, m, theta, turns[-1]) for n in range(L) for m in range(-n, n + 1)]
                np.testing.assert_allclose(harmonics[j, slot_k, slot_i], expected, rtol=1e-9, atol=1e-9)
            assert rule == "smooth" or sum(turns) == pytest.approx(2 * np.pi)
    assert max(map(len, of_atom)) >= 6


def test_sums_are_those_of_triplets():
    """Messages times both gates, gathered and added one triplet after the other."""
    options = {**SMALL["spherenet"], "conventions": "corrected"}
    model = randomize(build_model("spherenet", dtype="float64", **options))
    graph = graph_of(*molecules("CH3CH2OH", "H2", "CO2", "H"), model).to_tensors()
    vectors, block = edge_vectors(graph), model.int_blocks[0]
    sums = SphericalSums(graph, vectors, model.sbf_layer, "previous")
    sbf = model.sbf_layer.radial(safe_norm(vectors))
    tbf = tf.gather(sbf, model.bessel_degrees, axis=1)
    x = np.random.default_rng(0).standard_normal((len(sbf), model.int_emb_size))
    gates = [
        (sums.zonal, block.dense_sbf1(sbf), block.dense_sbf2.kernel),
        (sums.harmonics, block.dense_tbf1(tbf), block.dense_tbf2.kernel),
    ]
    source, target = graph.edge_source.numpy(), graph.edge_target.numpy()
    expected = np.zeros_like(x)
    for ji, (j, i) in enumerate(zip(source, target)):
        for kj in np.flatnonzero((target == j) & (source != i)):
            (slot,) = zip(*pair_slots(graph, [kj], [ji]))
            gate = [
                np.einsum(
                    "h,hn,hnf->f", y.numpy()[slot], radial.numpy()[kj], kernel.numpy().reshape(*radial.shape[1:], -1)
                )
                for y, radial, kernel in (
                    (sums.zonal, sbf, block.dense_sbf1.kernel @ block.dense_sbf2.kernel),
                    (sums.harmonics, tbf, block.dense_tbf1.kernel @ block.dense_tbf2.kernel),
                )
            ]
            expected[ji] += x[kj] * gate[0] * gate[1]
    np.testing.assert_allclose(sums.sum_gated(tf.constant(x), gates), expected, rtol=1e-11, atol=1e-12)


def test_frames_are_right_handed():
    n = np.random.default_rng(0).standard_normal((50, 3))
    n = np.concatenate([n / np.linalg.norm(n, axis=1, keepdims=True), np.eye(3), -np.eye(3)])
    first, second = perpendicular_frame(tf.constant(n))
    np.testing.assert_allclose(np.cross(first, second), n, atol=1e-15)
    np.testing.assert_allclose(np.linalg.norm(first, axis=1), 1)
    assert all(np.isfinite(part).all() for part in perpendicular_frame(tf.zeros([1, 3])))


def test_rounding_decides_no_torsion():
    """Flat molecules have neighbors in one half-plane: turning them must change neither energies nor forces."""
    model = randomize(build_model("spherenet", **SMALL["spherenet"]))
    N, Z, R = molecules("C6H6", "C2H2", "CO2")
    results = []
    for turn in Rotation.random(3, random_state=0).as_matrix():
        graph = graph_of(N, Z, R @ turn.T, model).to_tensors()
        with tf.GradientTape() as tape:
            tape.watch(graph.positions)
            scalars = model(graph).scalars
        results.append((scalars, tf.convert_to_tensor(tape.gradient(scalars, graph.positions)) @ turn))
    for scalars, slope in results[1:]:
        assert error(scalars, results[0][0]) < 1e-5 and error(slope, results[0][1]) < 1e-4


def hydroxyl_turned(degrees: float) -> tuple[list[int], np.ndarray, np.ndarray]:
    """Ethanol, its hydroxyl's hydrogen turned about the bond between carbon and oxygen."""
    atoms = molecule("CH3CH2OH")
    atoms.rotate_dihedral(0, 1, 2, 3, degrees, indices=[3])
    return [len(atoms)], atoms.numbers, atoms.positions


def atom_leaving(distance: float) -> tuple[list[int], np.ndarray, np.ndarray]:
    """Water, and a carbon atom at this distance from the oxygen."""
    N, Z, R = molecules("H2O")
    return N + 1, np.append(Z, 6), np.concatenate([R, R[:1] + [[0.1, 0.3, distance]]])


@pytest.mark.parametrize(
    "path, start, stop, conventions",
    [(hydroxyl_turned, 55.0, 65.0, "official"), (atom_leaving, 2.9, 3.0, "corrected")],
    ids=["rotation", "cutoff"],
)
def test_the_published_torsion_jumps_and_the_smooth_one_does_not(path, start, stop, conventions):
    """The energy's change over an interval that is halved again and again, to where it changes most."""
    for torsion, jumps in (("published", True), ("smooth", False)):
        options = {**SMALL["spherenet"], "conventions": conventions, "torsion": torsion}
        model = randomize(build_model("spherenet", dtype="float64", **options))
        low, high = ((x, energies(model, *path(x))[0, 0]) for x in (start, stop))
        for _ in range(20):
            x = (low[0] + high[0]) / 2
            middle = x, energies(model, *path(x))[0, 0]
            low, high = max([(low, middle), (middle, high)], key=lambda ends: abs(ends[1][1] - ends[0][1]))
        change = abs(high[1] - low[1])
        assert change > 1e-3 if jumps else change < 1e-6


def test_a_torsion_needs_angles():
    for name in ("spherenet", "dpgn"):
        for torsion in ("published", "smooth"):
            with pytest.raises(UserError, match="num_spherical = 1 leaves no angles and no torsions"):
                build_model(name, num_spherical=1, torsion=torsion)


def test_ablations_are_gates_of_one():
    """Without torsion: DimeNet++'s sum. With one degree of harmonics left, the angle has no part in it."""
    options = {**SMALL["spherenet"], "conventions": "corrected"}
    full = randomize(build_model("spherenet", dtype="float64", **options))
    less = build_model("spherenet", dtype="float64", torsion="none", **options)
    weights = {name: variable.numpy() for name, variable in named_variables(full).items()}
    kept = {name: array for name, array in weights.items() if "dense_tbf" not in name}
    assign_weights(less, kept, "full")
    pairs = SumFirst(graph := graph_of(*molecules("CH3CH2OH"), less).to_tensors(), "interior")
    vectors, block = edge_vectors(graph), less.int_blocks[0]
    radial = block.dense_sbf1(less.sbf_layer.radial(safe_norm(vectors)))
    x = tf.constant(np.random.default_rng(0).standard_normal((len(vectors), less.int_emb_size)))
    expected = pairs.sum_product(pairs.angular(vectors, less.sbf_layer), x, radial, block.dense_sbf2.kernel)
    sums = SphericalSums(graph, vectors, less.sbf_layer, "none")
    ours = sums.sum_gated(x, [(sums.zonal, radial, block.dense_sbf2.kernel)])
    np.testing.assert_allclose(ours, expected, rtol=1e-11, atol=1e-12)
    assert not hasattr(sums, "harmonics")


def test_with_one_degree_of_harmonics_only_distances_matter():
    """Three atoms around a fourth, which alone is their neighbor, and two of them brought nearer to each other."""

    def change(**options) -> float:
        small = {**SMALL["spherenet"], "cutoff": 1.3, "torsion": "none", **options}
        model = randomize(build_model("spherenet", dtype="float64", **small))
        of_angles = []
        for angle in (1.6, 1.8):
            R = np.array([[0, 0, 0], [0, 0, 1], [1, 0, 0], [np.cos(angle), np.sin(angle), 0]])
            of_angles.append(energies(model, [4], np.array([6, 1, 1, 1]), R)[0, 0])
        return abs(of_angles[1] - of_angles[0])

    assert change(num_spherical=1) < 1e-12 and change() > 1e-6


def write(path, arrays) -> str:
    np.savez(path, **arrays)
    return str(path)


def test_state_dicts_of_dig_are_read(tmp_path, reference):
    theirs, path = reference.hyperparameters, write(tmp_path / "dig.npz", reference.state)
    options = {"elements": [1, 6, 7, 8, 9], "cutoff": theirs["cutoff"], "dtype": "float64"}
    predictor = load_dig_spherenet(path, "energy", unit="kcal/mol", **options)
    model, kcal = predictor.model, conversion("energy", "kcal/mol")
    prediction = predictor.predict_store(predictor.graph_store(*reference.molecules), np.arange(len(reference["in/N"])))
    assert error(prediction.values, reference["out64/E"] * kcal) < 1e-9
    assert error(prediction.forces, reference["out64/F"] * kcal) < 1e-9
    for ours, name in {
        "emb_size": "hidden_channels",
        "out_emb_size": "out_emb_channels",
        "num_blocks": "num_layers",
        "num_dense_output": "num_output_layers",
    }.items():
        assert getattr(model, ours) == theirs[name]
    for name in ("num_spherical", "num_radial", "num_before_skip", "num_after_skip", "int_emb_size"):
        assert getattr(model, name) == theirs[name]
    assert load_dig_spherenet(path, "U0", cutoff=theirs["cutoff"]).energy is None


def test_mistakes_in_files_name_the_array(tmp_path):
    state = SphereNetReference("small").state

    def load(changed):
        return load_dig_spherenet(write(tmp_path / "dig.npz", changed), cutoff=3.5)

    def without(name):
        return {key: array for key, array in state.items() if key != name}

    with pytest.raises(UserError, match="no weight 'output_blocks/2/up_projection/bias'"):
        load(without("update_vs.1.lin_up.bias"))
    with pytest.raises(UserError, match="no weight 'int_blocks/0/dense_tbf1/kernel'"):
        load(without("update_es.0.lin_t1.weight"))
    with pytest.raises(UserError, match="'int_blocks/1/dense_tbf1/kernel' has shape"):
        load({**state, "update_es.1.lin_t1.weight": np.zeros((5, 81))})
    with pytest.raises(UserError, match="unexpected array 'optimizer'"):
        load({**state, "optimizer": np.zeros(3)})
    outputs = [name for name in state if name.endswith(".lin.weight") and len(state[name]) == 1]
    with pytest.raises(UserError, match="this model predicts 2 properties"):
        load({**state, **{name: np.repeat(state[name], 2, axis=0) for name in outputs}})
    load({f"module.{name}": array for name, array in state.items()})  # of torch's DataParallel
    file = write(tmp_path / "sound.npz", state)
    for options, message in (
        ({"target": "u0"}, "unknown target 'u0'; did you mean 'U0'"),
        ({"unit": "kcal"}, "unit = kcal: U0 can be read in eV"),
        ({"cutoff": -1.0}, "cutoff = -1.0 must be greater than 0"),
        ({"dtype": "float16"}, "precision must be one of float32"),
    ):
        with pytest.raises(UserError, match=message):
            load_dig_spherenet(file, **options)
