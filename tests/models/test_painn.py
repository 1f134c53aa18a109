"""PaiNN: the published implementation's numbers, a model that SchNetPack trained, ablations, the cutoff."""

import numpy as np
import pytest
import tensorflow as tf
from ase.build import molecule

from dimenet_tf.errors import UserError
from dimenet_tf.interop import load_schnetpack
from dimenet_tf.interop.schnetpack import from_schnetpack
from dimenet_tf.layers.geometry import edge_vectors, safe_norm, unit_vectors
from dimenet_tf.md import DimeNetCalculator
from dimenet_tf.models import build_model
from dimenet_tf.models.painn import Neighborhood
from dimenet_tf.predictor import load
from dimenet_tf.predictor.weights import assign_weights, named_variables
from dimenet_tf.structures.quantities import conversion
from helpers.models import SMALL, graph_of, randomize
from helpers.molecules import molecules
from helpers.numerics import error
from helpers.paths import FILES
from helpers.references import Reference
from helpers.training import configuration, force_dataset, trainer_of


class PaiNNReference(Reference):
    def __init__(self, which: str) -> None:
        super().__init__("painn", which)

    def model(self, dtype: str, **options) -> tf.keras.Model:
        arrays = {key[2:]: self[key] for key in self.arrays.files if key.startswith("w/")}
        _, weights, hyperparameters, _ = from_schnetpack(arrays, "reference")
        model = build_model("painn", dtype=dtype, **hyperparameters, **options)
        assign_weights(model, weights, "reference")
        return model


@pytest.fixture(params=["small", "bessel"])
def reference(request) -> PaiNNReference:
    return PaiNNReference(request.param)


def test_hyperparameters_follow_from_the_arrays(reference):
    model, theirs = reference.model("float32"), reference.hyperparameters
    assert (model.emb_size, model.num_blocks) == (theirs["n_atom_basis"], theirs["n_interactions"])
    assert (model.radial_basis, model.num_radial, model.cutoff) == (theirs["rbf"], theirs["n_rbf"], theirs["cutoff"])
    assert not model.shared_filters


@pytest.mark.parametrize("dtype, tolerance", [("float64", 1e-9), ("float32", 1e-5)])
def test_energies_and_forces(reference, dtype, tolerance):
    model = reference.model(dtype)
    graph = graph_of(*reference.molecules, model).to_tensors()
    with tf.GradientTape() as tape:
        tape.watch(graph.positions)
        scalars = model(graph).scalars
    assert error(scalars[:, 0], reference["mid64/y_atom"]) < tolerance
    energy = tf.math.unsorted_segment_sum(scalars[:, 0], graph.molecule_of_atom, len(reference["in/N"]))
    assert error(energy, reference["out64/E"]) < tolerance
    assert error(-tf.convert_to_tensor(tape.gradient(scalars, graph.positions)), reference["out64/F"]) < tolerance


def test_intermediates(reference):
    model = reference.model("float64")
    graph = graph_of(*reference.molecules, model).to_tensors()
    np.testing.assert_array_equal(graph.edge_target, reference["idx/idx_i"])
    np.testing.assert_array_equal(graph.edge_source, reference["idx/idx_j"])
    vectors = edge_vectors(graph)
    distance = safe_norm(vectors)
    f_cut = model.cutoff_function(distance / model.cutoff)
    found = {"Rij": vectors, "d": distance, "rbf": model.rbf_basis(distance), "fcut": f_cut}
    filters = model.edge_filters(distance)
    before = np.concatenate([array for of_block in filters for array in of_block], axis=-1) / f_cut.numpy()[:, None]
    found["filter"] = reference.rows("filter", before)

    neighborhood = Neighborhood(graph, unit_vectors(vectors))
    s, v = model.atom_emb(graph.atomic_numbers), None
    found["q_emb"] = s
    for b, of_block in enumerate(filters):
        s, v = model.message_blocks[b](s, v, of_block, neighborhood)
        found |= {f"q_inter_{b}": s, f"mu_inter_{b}": v}
        s, v = model.update_blocks[b](s, v)
        found |= {f"q_mix_{b}": s, f"mu_mix_{b}": v}
    assert {f"mid64/{key}" for key in found} == {key for key in reference.arrays.files if "mid64" in key} - {
        "mid64/y_atom"
    }
    for key, ours in found.items():
        assert error(ours, reference[f"mid64/{key}"]) < 1e-9, key


ETHANOL = FILES / "painn_ethanol.npz"


@pytest.mark.parametrize("dtype, tolerance", [("float32", 1e-5), ("float64", 1e-9)])
def test_a_trained_model_of_schnetpack(dtype, tolerance):
    """Ethanol, rMD17: energies and forces of 20 frames."""
    predictor = load_schnetpack(ETHANOL, elements=[1, 6, 8], energy_unit="kcal/mol", dtype=dtype)
    assert predictor.units == {"energy": "eV", "forces": "eV/Ang"}
    reference, kcal = np.load(ETHANOL), conversion("energy", "kcal/mol")
    R = reference["in/R"]
    found = predictor.predict({"Z": np.tile(reference["in/Z"], (len(R), 1)), "R": R})
    assert error(found["forces"], reference["out64/F"] * kcal) < tolerance
    of_atoms = 9 * reference["w/postprocessors.1.mean"]  # what the network adds to it is 20 000 times smaller
    assert error(found["energy"] / kcal - of_atoms, reference["out64/E"] - of_atoms) < tolerance
    assert (predictor.model.num_radial, predictor.model.cutoff, predictor.model.radial_basis) == (20, 5.0, "gaussian")


def test_mistakes_in_files_name_the_array(tmp_path):
    reference = PaiNNReference("small")
    arrays = {key[2:]: reference[key] for key in reference.arrays.files if key.startswith("w/")}

    def load(changed):
        np.savez(tmp_path / "painn.npz", **changed)
        return load_schnetpack(tmp_path / "painn.npz", elements=[1, 6, 7, 8, 9], energy_unit="eV")

    assert load(arrays).model.count_params() == 17641 + 2 * 12  # names without w/; centers and widths count here
    mix = "representation.mixing.1.mu_channel_mix.weight"
    without = {key: array for key, array in arrays.items() if key != mix}
    with pytest.raises(UserError, match="no weight 'update_blocks/1/mix/kernel'"):
        load(without)
    bias = "output_modules.0.outnet.0.bias"
    with pytest.raises(UserError, match="no weight 'out_1/bias'"):
        load({key: array for key, array in arrays.items() if key != bias})
    with pytest.raises(UserError, match=r"no array 'representation.cutoff_fn'"):
        load({key: array for key, array in arrays.items() if "cutoff" not in key})
    with pytest.raises(UserError, match="unexpected array 'optimizer'"):
        load({**arrays, "optimizer": np.zeros(3)})
    with pytest.raises(UserError, match="'output_modules.1.outnet.0.bias' is there a second time"):
        load({**arrays, "output_modules.1.outnet.0.bias": arrays[bias]})
    with pytest.raises(UserError, match="atomref"):
        load({**arrays, "postprocessors.0.atomref": np.ones(100)})
    (tmp_path / "painn.npz").write_bytes(b"PK\x03\x04 nonsense")
    with pytest.raises(UserError, match="is not a readable npz file"):
        load_schnetpack(tmp_path / "painn.npz", elements=[1], energy_unit="eV")
    with pytest.raises(UserError, match="is not a readable npz file"):
        load_schnetpack(tmp_path / "missing.npz", elements=[1], energy_unit="eV")


@pytest.mark.parametrize(
    "options, parameters",
    [
        ({}, 589_057),  # SchNetPack; the paper says 588.3k
        ({"emb_size": 134, "scalar_product": False}, 589_333),  # Table 4: 589.1k
        ({"emb_size": 135, "vector_propagation": False}, 589_275),  # 589.2k
        ({"emb_size": 142, "scalar_product": False, "vector_propagation": False}, 589_301),  # 590.1k
    ],
)
def test_published_sizes(options, parameters):
    model = build_model("painn", **options)
    assert sum(np.prod(variable.shape) for variable in model.trainable_variables) == parameters


def outputs(model) -> np.ndarray:
    return model(graph_of(*molecules("CH3CH2OH", "C6H6", "H"), model)).scalars.numpy()


def without_columns(array: np.ndarray, columns: list[int], count: int) -> np.ndarray:
    """Zero parts of the last axis, which holds `count` of them."""
    kept = np.isin(np.arange(count), columns, invert=True)
    return (array.reshape(*array.shape[:-1], count, -1) * kept[:, None]).reshape(array.shape)


@pytest.mark.parametrize("ablation", ["scalar_product", "vector_propagation", "vectors"])
def test_ablations_are_the_model_with_parts_of_it_zero(ablation):
    F = SMALL["painn"]["emb_size"]
    full = randomize(build_model("painn", dtype="float64", **SMALL["painn"]))
    less = build_model("painn", dtype="float64", **{ablation: False}, **SMALL["painn"])
    kinds = {"scalar_product": 3, "vector_propagation": 2, "vectors": 1}[ablation]
    weights = {name: variable.numpy() for name, variable in named_variables(full).items()}
    fewer = dict(weights)
    for name, array in weights.items():
        in_messages = name.startswith("message_blocks") and "dense_2" in name
        in_updates = name.startswith("update_blocks") and "dense_2" in name
        if in_messages and kinds < 3:  # phi_s, phi_vs, phi_vv
            fewer[name] = array[..., : kinds * F]
        elif name.startswith("filters") and kinds < 3:
            weights[name] = without_columns(array, [k + 3 * b for b in range(2) for k in range(kinds, 3)], 6)
            parts = array.reshape(*array.shape[:-1], 2, 3, F)[..., :kinds, :]
            fewer[name] = parts.reshape(*array.shape[:-1], -1)
        elif in_updates and ablation == "scalar_product":  # a_ss, a_vv, a_sv
            weights[name], fewer[name] = without_columns(array, [2], 3), array[..., : 2 * F]
        elif in_updates and ablation == "vectors":
            weights[name], fewer[name] = without_columns(array, [1, 2], 3), array[..., :F]
        elif name.endswith("dense_1/kernel") and name.startswith("update_blocks") and ablation == "vectors":
            weights[name] = np.concatenate([array[:F], np.zeros_like(array[F:])])  # of |V v|
            fewer[name] = array[:F]
        elif name.endswith("mix/kernel") and ablation == "vectors":
            del fewer[name]
    before = outputs(full)
    assign_weights(full, weights, "full")
    assign_weights(less, fewer, "less")
    np.testing.assert_allclose(outputs(less), outputs(full), rtol=1e-12)
    assert np.abs(outputs(less) - before).max() > 1e-3


def test_shared_filters_are_the_same_in_all_blocks():
    shared = randomize(build_model("painn", dtype="float64", shared_filters=True, **SMALL["painn"]))
    own = build_model("painn", dtype="float64", **SMALL["painn"])
    weights = {name: variable.numpy() for name, variable in named_variables(shared).items()}
    for name in ("filters/kernel", "filters/bias"):
        weights[name] = np.concatenate([weights[name]] * 2, axis=-1)
    assign_weights(own, weights, "shared")
    np.testing.assert_allclose(outputs(shared), outputs(own), rtol=1e-12)


def test_scalars_and_vectors_of_the_same_number_belong_together():
    model = randomize(
        build_model("painn", dtype="float64", num_targets=4, num_vectors=2, output_init="zeros", **SMALL["painn"])
    )
    graph = graph_of(*molecules("CH3CH2OH"), model)
    before = model(graph)
    assert before.scalars.shape == (9, 4) and before.vectors.shape == (9, 2, 3)
    last = model.out_gated[1][1].dense_2
    last.kernel.assign_add(tf.ones_like(last.kernel))
    model.out_2.bias.assign_add([1.0, 0.0])
    after = model(graph)
    changed = np.any(np.abs(after.scalars - before.scalars) > 1e-6, axis=0)
    assert changed.tolist() == [True, False, False, True]
    assert np.any(np.abs(after.vectors - before.vectors) > 1e-6, axis=(0, 2)).tolist() == [False, True]


def test_wrong_numbers_of_vectors_are_named():
    with pytest.raises(UserError, match="vectors = False leaves no vectors, but num_vectors = 1"):
        build_model("painn", vectors=False, num_vectors=1)
    with pytest.raises(UserError, match="num_vectors must be between 0 and"):
        build_model("painn", num_vectors=2)


def test_trained_with_forces(tmp_path):
    """A few steps; the run's folder gives the same numbers as ASE's calculator."""
    trainer = trainer_of(
        configuration("painn", batch_size=4, num_steps=4, evaluation_interval=2), tmp_path, force_dataset()
    )
    trainer.run()
    assert np.isfinite([row["loss"] for row in trainer.folder.read_metrics()]).all()
    predictor, atoms = load(tmp_path), molecule("CH3CH2OH")
    expected = predictor.predict([atoms])
    atoms.calc = DimeNetCalculator(predictor)
    for name, own in (("energy", atoms.get_potential_energy()), ("forces", atoms.get_forces())):
        np.testing.assert_allclose(own, expected[name][0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("envelope, jump", [("cosine", True), ("polynomial", False)])
def test_curvature_at_the_cutoff(envelope, jump):
    """Energy and force vanish smoothly either way; only the polynomial's second derivative is continuous."""
    model = randomize(build_model("painn", dtype="float64", envelope=envelope, **SMALL["painn"]))

    def derivatives(distance):
        graph = graph_of([2], np.array([6, 8]), np.array([[0, 0, 0], [0, 0, model.cutoff - 0.1]]), model).to_tensors()
        d = tf.constant(distance, tf.float64)
        with tf.GradientTape() as second, tf.GradientTape() as first:
            first.watch(d)
            second.watch(d)
            positions = tf.stack([tf.zeros(3, tf.float64), tf.stack([0.0 * d, 0.0 * d, d])])
            energy = tf.reduce_sum(model(graph._replace(positions=positions)).scalars)
            slope = first.gradient(energy, d)
        return energy.numpy(), slope.numpy(), second.gradient(slope, d).numpy()

    inside, outside = derivatives(model.cutoff - 1e-6), derivatives(model.cutoff + 1e-6)
    differences = np.abs(np.subtract(inside, outside))
    assert differences[0] < 1e-9 and differences[1] < 1e-4
    assert (differences[2] > 0.05) if jump else (differences[2] < 1e-3)
