"""GemNet: the published implementation's numbers, scaling factors, direct forces."""

import numpy as np
import pytest
import tensorflow as tf
from ase.build import molecule

from dimenet_tf.basis.formulas import official_order
from dimenet_tf.errors import UserError
from dimenet_tf.graph import Graph
from dimenet_tf.interop import load_gemnet_checkpoint, load_gemnet_state_dict
from dimenet_tf.interop.dimenet import SUFFIX
from dimenet_tf.interop.gemnet import from_official
from dimenet_tf.layers.geometry import edge_vectors, safe_norm
from dimenet_tf.layers.messages import HadamardProduct
from dimenet_tf.layers.quadruplets import STRAIGHT, Quadruplets
from dimenet_tf.layers.scaled import FeatureNorm, ScaleFactor, fit_scale_factors
from dimenet_tf.models import build_model
from dimenet_tf.predictor import load
from dimenet_tf.predictor.weights import assign_weights, named_variables
from helpers.models import SMALL, force_field, graph_of
from helpers.molecules import molecules
from helpers.numerics import real_harmonic
from helpers.paths import ROOT
from helpers.references import Reference
from helpers.training import configuration, force_dataset, trainer_of

FILES = [(f"gemnet_{variant}", "small") for variant in ("q", "t", "dq", "dt")] + [("gemnet_q", "basis76")]


class GemNetReference(Reference):
    def model(self, dtype: str, **options) -> tf.keras.Model:
        hyperparameters = {key: value for key, value in self.hyperparameters.items() if key != "activation"}
        model = build_model("gemnet", dtype=dtype, **hyperparameters, **options)
        weights = {key[2:]: self[key] for key in self.arrays.files if key.startswith("w/")}
        assign_weights(model, from_official(weights, model.num_spherical), "reference")
        return model

    def of_edges(self, key: str, ours: tf.Tensor, graph: Graph) -> np.ndarray:
        """Our rows of edges in the reference's order, and those that the file holds of an intermediate."""
        numbers = {pair: e for e, pair in enumerate(zip(graph.edge_source.numpy(), graph.edge_target.numpy()))}
        order = [numbers[pair] for pair in zip(self["idx/id_c"], self["idx/id_a"])]
        return self.rows(key, ours.numpy()[order])


@pytest.fixture(params=FILES, ids="-".join)
def reference(request) -> GemNetReference:
    return GemNetReference(*request.param)


def tensors(graph: Graph) -> Graph:
    return graph.to_tensors()


def error(ours, theirs) -> float:
    return np.abs(np.asarray(ours) - theirs).max() / np.abs(theirs).max()


@pytest.mark.parametrize("aggregation", ["sum_first", "triplets", "harmonics"])
@pytest.mark.parametrize("dtype, tolerance", [("float64", 1e-9), ("float32", 3e-5)])
def test_outputs_and_forces(reference, dtype, tolerance, aggregation):
    model = reference.model(dtype, aggregation=aggregation)
    graph = tensors(graph_of(*reference.molecules, model))
    with tf.GradientTape() as tape:
        tape.watch(graph.positions)
        outputs = model(graph)
        energy = tf.math.unsorted_segment_sum(outputs.scalars, graph.molecule_of_atom, len(reference["in/N"]))
    assert error(energy, reference["out64/E"]) < tolerance
    if model.direct_forces:
        forces = outputs.forces
    else:
        forces = -tf.convert_to_tensor(tape.gradient(energy, graph.positions))
        assert outputs.forces.shape == (0, model.num_targets, 3)
    assert error(forces, reference["out64/F"]) < tolerance


def test_intermediates(reference):
    model = reference.model("float64")
    graph = tensors(graph_of(*reference.molecules, model))
    vectors = edge_vectors(graph)
    distance = safe_norm(vectors)
    rbf = model.rbf_basis(distance) * np.sqrt(2 / model.cutoff) / model.cutoff
    assert error(reference.of_edges("rbf", rbf, graph), reference["mid64/rbf"]) < 1e-9
    triplets, quadruplets = model.bases(graph, vectors, distance, rbf)
    rbf_h = model.mlp_rbf_h(rbf)
    h = model.atom_emb(graph.atomic_numbers)
    m = model.edge_emb(h, rbf, graph)
    for b, block in enumerate(model.int_blocks):
        x3 = block.trip_interaction(m, triplets, graph)
        assert error(reference.of_edges(f"x3_int_{b}", x3, graph), reference[f"mid64/x3_int_{b}"]) < 1e-9
        if not model.triplets_only:
            x4 = block.quad_interaction(m, quadruplets, graph)
            assert error(reference.of_edges(f"x4_int_{b}", x4, graph), reference[f"mid64/x4_int_{b}"]) < 1e-9
        h, m = block(h, m, rbf_h, triplets, quadruplets, graph)
        assert error(reference.rows(f"h_int_{b}", h.numpy()), reference[f"mid64/h_int_{b}"]) < 1e-9
        assert error(reference.of_edges(f"m_int_{b}", m, graph), reference[f"mid64/m_int_{b}"]) < 1e-9


def test_published_sizes():
    """The authors' numbers of weights; their table of atoms lacks our rows 0 and 94."""
    for options, parameters in (
        ({}, 2_158_470 + 29),
        ({"triplets_only": True}, 1_892_294 + 17),
        ({"direct_forces": True}, 2_578_950 + 34),
        ({"direct_forces": True, "triplets_only": True}, 2_312_774 + 22),
    ):
        assert build_model("gemnet", **options).count_params() == parameters + 2 * 128


def test_quadruplets_are_all_and_no_others():
    """Every path with its harmonics, one by one, against the sums over padded arrays."""
    model = build_model("gemnet", dtype="float64", **{**SMALL["gemnet"], "int_cutoff": 2.5})
    graph = tensors(graph_of(*molecules("CH3CH2OH", "C6H6", "H2"), model))
    R, L = graph.positions.numpy(), 3
    source, target = graph.edge_source.numpy(), graph.edge_target.numpy()
    of = graph.molecule_of_atom.numpy()
    quadruplets = Quadruplets(graph, edge_vectors(graph), num_spherical=L)
    rng = np.random.default_rng(0)
    x, radial = rng.standard_normal((len(source), 2)), rng.standard_normal((len(source), L * L, 2))
    expected = np.zeros((len(source), 2, 2))
    for ca, (c, a) in enumerate(zip(source, target)):
        for db, (d, b) in enumerate(zip(source, target)):
            near = of[a] == of[b] and 0 < np.linalg.norm(R[a] - R[b]) <= 2.5
            if not near or c in (b, d) or d == a:
                continue
            axis, to_c, to_d = ((v / np.linalg.norm(v)) for v in (R[b] - R[a], R[c] - R[a], R[d] - R[b]))
            p, q = to_c - to_c @ axis * axis, to_d - to_d @ axis * axis
            if np.linalg.norm(q) < STRAIGHT:
                continue  # in line: not compared below
            theta = np.arccos(np.clip(to_c @ axis, -1, 1))
            phi = np.arctan2(np.linalg.norm(np.cross(p, q)), p @ q)
            y = [real_harmonic(degree, m, theta, phi) for degree in range(L) for m in range(-degree, degree + 1)]
            expected[ca] += np.einsum("s,sk,f->kf", y, radial[ca], x[db])
    ours = quadruplets.sum_outer(quadruplets.to_paths(tf.constant(x)), tf.constant(radial))
    straight = of[target] == 1  # benzene has atoms in line
    np.testing.assert_allclose(ours[~straight], expected[~straight], rtol=1e-9, atol=1e-9)
    assert np.abs(expected[~straight]).max() > 1


def write_checkpoint(folder, reference: Reference, leave_out: str = "") -> None:
    """Write the reference's weights as the authors' training script leaves them."""
    folder.mkdir()
    arrays = {key[2:]: reference[key] for key in reference.arrays.files if key.startswith("w/")}
    arrays = {f"{name}{SUFFIX}": value for name, value in arrays.items() if name != leave_out}
    tf.raw_ops.SaveV2(
        prefix=str(folder / "ckpt"),
        tensor_names=list(arrays),
        shape_and_slices=[""] * len(arrays),
        tensors=[tf.constant(value) for value in arrays.values()],
    )
    (folder / "checkpoint").write_text('model_checkpoint_path: "ckpt"\n')


@pytest.mark.parametrize("name", ["gemnet_q", "gemnet_t"])
def test_the_authors_checkpoints_are_read(tmp_path, name):
    file = GemNetReference(name, "small")
    hyperparameters = {key: value for key, value in file.hyperparameters.items() if key != "activation"}
    write_checkpoint(tmp_path / "official", file)
    elements = np.unique(file["in/Z"]).tolist()
    predictor = load_gemnet_checkpoint(tmp_path / "official", elements, "float64", **hyperparameters)
    store = predictor.graph_store(*file.molecules)
    prediction = predictor.predict_store(store, np.arange(len(store)))
    assert error(prediction.values, file["out64/E"]) < 1e-9 and error(prediction.forces, file["out64/F"]) < 1e-9
    factor = "out_blocks/0/scale_sum/scale_factor"
    write_checkpoint(tmp_path / "without", file, leave_out=factor)
    with pytest.raises(UserError, match=f"no weight '{factor}'"):
        load_gemnet_checkpoint(tmp_path / "without", elements, **hyperparameters)


@pytest.mark.parametrize("inner", [".linear", ""])
def test_state_dicts_of_pytorch_are_read(tmp_path, inner):
    """The reference weights in PyTorch's layout: dense kernels transposed, names with dots."""
    file = GemNetReference("gemnet_q", "small")
    state = {}
    for name in (key[2:] for key in file.arrays.files if key.startswith("w/")):
        value, path = file[f"w/{name}"], name.replace("/", ".").replace("layer_with_weights-", "")
        if path.endswith(".kernel"):
            dense = value.ndim == 2
            path = path.removesuffix(".kernel") + (inner if dense else "") + ".weight"
            value = value.T if dense else value
        elif path.endswith(".embeddings"):
            path += ".weight"
        state[path] = value
    np.savez(tmp_path / "weights.npz", **state)
    hyperparameters = {key: value for key, value in file.hyperparameters.items() if key != "activation"}
    elements = np.unique(file["in/Z"]).tolist()
    predictor = load_gemnet_state_dict(tmp_path / "weights.npz", elements, "float64", **hyperparameters)
    prediction = predictor.predict_store(predictor.graph_store(*file.molecules), np.arange(len(file["in/N"])))
    assert error(prediction.values, file["out64/E"]) < 1e-9


def test_order_of_the_authors_harmonics():
    assert official_order(3) == [0, 3, 1, 2, 7, 8, 4, 5, 6]


def test_scaling_factors_keep_variances():
    model = build_model("gemnet", **SMALL["gemnet"])
    graph = graph_of(*molecules("CH3CH2OH", "C6H6", "CH3COOH"), model)
    fit_scale_factors(model, graph)
    factors = [layer for layer in model.submodules if isinstance(layer, ScaleFactor)]
    values = [float(layer.scale_factor) for layer in factors]
    assert len(values) == 2 * 6 + 3 and all(np.isfinite(values)) and 1.0 not in values
    seen = {}
    for layer in factors:

        def call(x, reference, layer=layer):
            scaled = type(layer).call(layer, x, reference)
            seen[id(layer)] = float(layer._variance(scaled) / layer._variance(reference))
            return scaled

        layer.call = call
    model(graph)
    np.testing.assert_allclose(list(seen.values()), 1, rtol=1e-4)


def test_a_model_without_its_factors_is_refused():
    model = build_model("gemnet", **SMALL["gemnet"])
    weights = {name: variable.numpy() for name, variable in named_variables(model).items()}
    factor = next(name for name in weights if name.endswith("scale_factor"))
    del weights[factor]
    with pytest.raises(UserError, match=f"no weight '{factor}'"):
        assign_weights(model, weights, "file")


@pytest.mark.parametrize("options", [{}, {"triplets_only": True, "direct_forces": True}], ids=["q", "dt"])
def test_training_fits_factors_and_keeps_them(tmp_path, options):
    config = configuration("gemnet", batch_size=4, num_steps=4, evaluation_interval=2)
    config["model"] |= options
    trainer = trainer_of(config, tmp_path, force_dataset())
    factor = trainer.predictor.model.int_blocks[0].trip_interaction.scale_rbf.scale_factor
    fitted = float(factor)
    assert fitted != 1
    trainer.run()
    assert float(factor) == fitted
    best = load(tmp_path, aggregation="triplets")
    with pytest.raises(UserError, match="'recompute' is no option of a trained gemnet; options are aggregation"):
        load(tmp_path, recompute=True)
    assert float(best.model.int_blocks[0].trip_interaction.scale_rbf.scale_factor) == fitted
    again = trainer_of(config, tmp_path, force_dataset()).predictor.model
    assert float(again.int_blocks[0].trip_interaction.scale_rbf.scale_factor) == fitted
    losses = [row["loss"] for row in trainer.folder.read_metrics()]
    assert np.isfinite(losses).all()


@pytest.mark.parametrize("coupled", [False, True])
def test_direct_forces_turn_with_the_molecule(coupled):
    predictor, atoms = force_field("gemnet", direct_forces=True, forces_coupled=coupled), molecule("CH3CH2OH")
    before = predictor.predict([atoms])["forces"][0]
    turned = atoms.copy()
    turned.rotate(50, (1, 2, 3))
    start, end = (a.positions - a.positions[0] for a in (atoms, turned))
    rotation = np.linalg.lstsq(start, end, rcond=None)[0]
    largest = np.abs(before).max()
    np.testing.assert_allclose(predictor.predict([turned])["forces"][0], before @ rotation, atol=1e-9 * largest)
    total = np.abs(before.sum(axis=0)).max()
    assert total < 1e-12 * largest if coupled else total > 1e-3 * largest
    with pytest.raises(UserError, match="no gradient of an energy"):
        predictor.hessian(atoms)


def test_gradients_of_shared_projections_are_divided(tmp_path):
    """With SGD in the place of AMSGrad, by the number of blocks that use them (App. F)."""
    trainer = trainer_of(configuration("gemnet", batch_size=4, max_grad_norm=1e9), tmp_path, force_dataset())
    model, batch = trainer.predictor.model, next(iter(trainer._training_data(0)))
    weights = {name: getattr(model, name).kernel for name in ("mlp_rbf3", "mlp_sbf4", "mlp_rbf_out")}
    weights["dense"] = model.edge_emb.dense.kernel
    before = {name: kernel.numpy() for name, kernel in weights.items()}
    graph = batch.graph
    with tf.GradientTape() as tape:
        losses = trainer.loss(
            trainer.predictor.compute(graph), batch.targets, batch.forces, graph.molecule_of_atom, graph.num_atoms
        )
        loss = batch.weight * tf.reduce_sum(losses)
    gradients = tape.gradient(loss, weights)
    trainer.training.compile(tf.keras.optimizers.legacy.SGD(1.0))
    trainer.training.train_step(batch)
    blocks = {"mlp_rbf3": 2, "mlp_sbf4": 2, "mlp_rbf_out": 3, "dense": 1}
    assert model.num_blocks == 2
    for name, kernel in weights.items():
        step = before[name] - kernel.numpy()
        expected = gradients[name].numpy() / blocks[name]
        np.testing.assert_allclose(step, expected, atol=1e-3 * np.abs(expected).max(), err_msg=name)


ABLATIONS = {
    # Table 4 at published size: hyperparameters, parameters without the scaling factors, which are not trained
    "without symmetric message passing": ({"symmetric": False}, 2_109_574),
    "Hadamard product instead of bilinear layer": ({"bilinear": False}, 1_773_702),
    "without atom embedding updates": ({"atom_updates": False}, 1_822_758),
    "without one-hop message passing": ({"one_hop": False}, 1_723_782),
    "without two-hop message passing": ({"triplets_only": True}, 1_892_550),
    "without scaling factors": ({"normalization": "none"}, 2_158_726),
    "use layer norm instead (without centering)": ({"normalization": "layer_norm"}, 2_161_414),
    "with bias": ({"bias": True}, 2_171_782),
    "GemNet-Q": ({}, 2_158_726),
}


def test_ablations_of_table_4():
    counts = {}
    for name, (hyperparameters, _) in ABLATIONS.items():
        model = build_model("gemnet", **hyperparameters)
        model.make_weights()
        counts[name] = sum(int(np.prod(weight.shape)) for weight in model.trainable_variables)
    assert counts == {name: count for name, (_, count) in ABLATIONS.items()}
    page = (ROOT / "docs/models.md").read_text()
    for name, count in counts.items():
        assert f"| {name} | {count:,} |".replace(",", " ") in page, name


def test_a_hadamard_product_is_one_of_basis_and_message():
    """Its sum over neighbors, one neighbor at a time."""
    rng = np.random.default_rng(0)
    basis, messages = rng.normal(size=(5, 3)), rng.normal(size=(5, 4))  # of five neighbors
    layer = HadamardProduct(seed=0, dtype="float64")
    found = layer(np.einsum("nb,nf->bf", basis, messages)[None])
    expected = sum((b @ layer.kernel.numpy()) * m for b, m in zip(basis, messages))
    np.testing.assert_allclose(found[0], expected, rtol=1e-12)


def test_layer_norm_does_not_center():
    x = np.random.default_rng(0).normal(3.0, 2.0, size=(7, 4))
    layer = FeatureNorm(dtype="float64")
    found = layer(tf.constant(x), reference=None)
    np.testing.assert_allclose(found, x / np.sqrt((x**2).mean(axis=1, keepdims=True) + 1e-5), rtol=1e-12)
    assert not np.any(layer(tf.zeros([2, 4], tf.float64), reference=None))
