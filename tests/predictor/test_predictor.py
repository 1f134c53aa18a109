import ase.io
import h5py
import numpy as np
import pytest
import tensorflow as tf
from ase.build import molecule

import dimenet_tf
from dimenet_tf.errors import UserError
from dimenet_tf.predictor import Predictor
from dimenet_tf.predictor.weights import assign_weights, named_variables
from helpers.models import two_targets
from helpers.molecules import closed_shell

NAMES = ["CH3CH2OH", "H2O", "CO2", "H2"]


def padded(names) -> dict[str, np.ndarray]:
    atoms = [molecule(name) for name in names]
    size = max(map(len, atoms)) + 2
    Z, R = np.zeros((len(names), size), int), np.full((len(names), size, 3), 77.0)
    for i, a in enumerate(atoms):
        Z[i, : len(a)], R[i, : len(a)] = a.numbers, a.positions
    return {"Z": Z, "R": R}


def test_padded_arrays_atoms_and_single_molecules_agree(model_name):
    predictor = two_targets(model_name)
    together = predictor.predict(padded(NAMES))
    assert list(together) == ["U0", "mu"] and together["U0"].dtype == np.float64
    from_atoms = predictor.predict([molecule(name) for name in NAMES], batch_size=3)
    single = [predictor.predict(padded([name])) for name in NAMES]
    for key in together:
        np.testing.assert_allclose(from_atoms[key], together[key], rtol=1e-6)
        np.testing.assert_allclose([s[key][0] for s in single], together[key], rtol=1e-6)


def test_data_sets_files_and_generators(tmp_path):
    predictor, inputs = two_targets(), padded(NAMES)
    expected = predictor.predict(inputs)
    batched = tf.data.Dataset.from_tensor_slices(inputs).batch(3)
    ragged = tf.data.Dataset.from_generator(
        lambda: ({"Z": a.numbers, "R": a.positions} for a in map(molecule, NAMES)),
        output_signature={"Z": tf.TensorSpec([None], tf.int32), "R": tf.TensorSpec([None, 3], tf.float32)},
    )
    ase.io.write(tmp_path / "some.extxyz", [molecule(name) for name in NAMES])
    for given in (
        batched,
        batched.map(lambda x: (x, 0.0)),
        ragged.padded_batch(2),
        tmp_path / "some.extxyz",
        str(tmp_path / "some.extxyz"),
        (molecule(name) for name in NAMES),
    ):
        np.testing.assert_allclose(predictor.predict(given, batch_size=2, verbose=1)["U0"], expected["U0"], rtol=1e-6)


def test_forces_of_a_data_set_are_as_wide_as_its_widest_batch():
    predictor = two_targets().with_forces("U0")
    listed = predictor.predict([molecule(name) for name in NAMES])["forces"]
    batches = [padded(NAMES[:1]), padded(NAMES[1:])]  # 11 and 5 atoms
    data = tf.data.Dataset.from_generator(
        lambda: batches,
        output_signature={"Z": tf.TensorSpec([None, None], tf.int32), "R": tf.TensorSpec([None, None, 3], tf.float64)},
    )
    forces = predictor.predict(data)["forces"]
    assert forces.shape == (4, 11, 3)
    np.testing.assert_allclose(forces[:, :9], listed, atol=1e-6 * np.abs(listed).max())
    assert not forces[:, 9:].any()


@pytest.mark.parametrize("energy", [None, "U0"])
def test_keras_saves_and_loads_predictors(tmp_path, energy):
    predictor = two_targets("dimenet")
    predictor = predictor if energy is None else predictor.with_forces(energy)
    predictor.save(tmp_path / "predictor.keras")
    loaded = tf.keras.models.load_model(tmp_path / "predictor.keras")
    assert type(loaded) is Predictor and loaded.get_config() == predictor.get_config()
    before, after = predictor.predict(padded(NAMES)), loaded.predict(padded(NAMES))
    assert list(before) == list(after)
    for key in before:
        np.testing.assert_array_equal(before[key], after[key])


def test_keras_formats_that_do_not_fit(tmp_path):
    with pytest.raises(UserError, match="NAME.keras, a SavedModel is written by `export`"):
        two_targets().save(tmp_path / "folder")


@pytest.mark.parametrize("extensive", [True, False])
def test_head_sums_scales_and_offsets(extensive):
    predictor = two_targets(extensive=extensive, offset=3.0)
    predictor.model.set_weights([np.zeros_like(w) for w in predictor.model.get_weights()])
    result = predictor.predict([molecule("CH3CH2OH")])
    assert result["U0"][0] == pytest.approx(3.0 + 6 * -13.0 + 2 * -1000.0 - 2000.0, abs=1e-9)
    assert result["mu"][0] == 1.5


def test_mean_output_is_the_sum_over_atoms_divided():
    total, mean = two_targets(extensive=True), two_targets(extensive=False)
    mean.model.set_weights(total.model.get_weights())
    a, b = total.predict([molecule("H2O")])["mu"], mean.predict([molecule("H2O")])["mu"]
    np.testing.assert_allclose((a - 1.5) / 3, b - 1.5, rtol=1e-6)


def test_large_offsets_keep_small_differences():
    """Two conformations whose energies differ by 0.1 meV at -4000 eV, where float32 steps by 0.5 meV."""
    near, far = two_targets(offset=0.0), two_targets(offset=-4000.0)
    stretched = molecule("H2O")
    stretched.positions[1] *= 1.0001
    a = np.diff(near.predict([molecule("H2O"), stretched])["U0"])
    b = np.diff(far.predict([molecule("H2O"), stretched])["U0"])
    np.testing.assert_allclose(a, b, atol=1e-9)


def test_one_trace_for_any_sequence_of_sizes():
    predictor = two_targets()
    for names in (NAMES, ["H2"], ["CO2"] * 40):
        predictor.predict(padded(names))
    assert predictor.graph_function.experimental_get_tracing_count() == 1


@pytest.mark.parametrize("dtype", ["float32", "float64", "mixed_bfloat16"])
def test_folder_round_trip(tmp_path, model_name, dtype):
    predictor = two_targets(model_name, dtype=dtype)
    predictor.to_folder(tmp_path / "model")
    loaded = dimenet_tf.load(tmp_path / "model")
    before, after = predictor.predict(padded(NAMES)), loaded.predict(padded(NAMES))
    for key in before:
        np.testing.assert_array_equal(before[key], after[key])
    assert loaded.units == {"U0": "eV", "mu": "D"} and loaded.elements == [1, 6, 8] and loaded.precision == dtype


def test_batches_are_smaller_where_molecules_are_large(monkeypatch):
    predictor, names = two_targets(), ["H2O", "H2", "C6H6", "C6H6", "H2", "CH3CH2OH", "H"]
    atoms = [closed_shell(name) for name in names]
    N, Z, R = (np.concatenate(a) for a in zip(*(([len(a)], a.numbers, a.positions) for a in atoms)))
    store, expected = predictor.graph_store(N, Z, R), predictor.predict(atoms)["U0"]

    def counted(batch_size: int) -> tuple[int, np.ndarray]:
        calls = []
        got = predictor.predict_store(store, np.arange(len(N)), batch_size, lambda: calls.append(1))
        return len(calls), got.values[:, 0]

    assert counted(32)[0] == 1 and counted(3)[0] == 3
    edges = store.sizes("edges")
    room = 4 * (edges[2] + 10) * predictor.model.kept_per_edge((edges / N).max())
    monkeypatch.setattr("dimenet_tf.predictor.predictor.MEMORY", room)  # for one benzene and the two smallest before it
    batches, values = counted(32)
    assert batches == 3
    np.testing.assert_allclose(values, expected, rtol=1e-6)
    monkeypatch.setattr("dimenet_tf.predictor.predictor.MEMORY", 1.0)  # one molecule is computed in any case
    assert counted(32)[0] == len(N)


def test_options_of_loading_change_how_not_what(tmp_path):
    predictor = two_targets()
    predictor.to_folder(tmp_path)
    expected = predictor.predict(padded(NAMES))["U0"]
    for options in ({"aggregation": "sum_first"}, {"aggregation": "triplets"}, {"recompute": True}):
        loaded = dimenet_tf.load(tmp_path, **options)
        assert loaded.model.get_config() == {**predictor.model.get_config(), "name": loaded.model.name, **options}
        np.testing.assert_allclose(loaded.predict(padded(NAMES))["U0"], expected, rtol=1e-6)
    with pytest.raises(
        UserError, match="'cutoff' is no option of a trained dimenet_pp; options are aggregation, recompute"
    ):
        dimenet_tf.load(tmp_path, cutoff=3.0)
    with pytest.raises(UserError, match="aggregation must be one of auto"):
        dimenet_tf.load(tmp_path, aggregation="fast")
    two_targets("spherenet").to_folder(tmp_path / "other")
    with pytest.raises(UserError, match="'recompute' is no option of a trained spherenet$"):
        dimenet_tf.load(tmp_path / "other", recompute=True)


def test_clone_is_independent():
    predictor = two_targets()
    twin = predictor.clone()
    before = twin.predict(padded(NAMES))["U0"]
    predictor.model.set_weights([w * 0 for w in predictor.model.get_weights()])
    np.testing.assert_array_equal(twin.predict(padded(NAMES))["U0"], before)


def with_nan():
    inputs = padded(["H2O"])
    inputs["R"][0, 1, 2] = np.nan
    return inputs


def with_overlap():
    inputs = padded(["CO2", "H2O"])
    inputs["R"][1, 1] = inputs["R"][1, 0]
    return inputs


BAD = [
    (with_nan, "molecule 0 has a coordinate that is not finite"),
    (with_overlap, "molecule 1 has two atoms at the same place"),
    (
        lambda: padded(["H2O", "NH3"]),
        "molecule 1 contains N, .* this model knows H, C, O",
    ),
    (lambda: {"Z": np.zeros((1, 3), int), "R": np.zeros((1, 3, 3))}, "molecule 0 has no atoms"),
    (lambda: {"Z": np.zeros((1, 3), int), "R": np.zeros((1, 2, 3))}, r"Z must be \(molecules, atoms\)"),
    (lambda: {"Z": np.array([[0, 1]]), "R": np.zeros((1, 2, 3))}, "Z = 0 is padding"),
    (lambda: {"Z": np.array([[1]])}, "predict needs 'Z' and 'R'"),
    (lambda: {"Z": np.array(8), "R": np.zeros(3)}, r"Z must be \(molecules, atoms\)"),
    (lambda: {"Z": [8]}, "predict needs 'Z' and 'R'"),
    (lambda: [molecule("H2O", pbc=True, cell=[9, 9, 9])], "molecule 0 is periodic; the model was trained on molecules"),
    (lambda: [molecule("H2O")] * 40 + [molecule("NH3")], "molecule 40 contains N"),
    (lambda: tf.data.Dataset.from_tensor_slices(padded(["H2O"])), r"Z must be \(molecules, atoms\)"),
    (lambda: molecule("NH3"), "molecule 0 contains N"),
    (lambda: tf.data.Dataset.from_tensor_slices([1.0]), "a data set of {'Z'"),
    (lambda: "nowhere.extxyz", "no such file: nowhere.extxyz"),
]


@pytest.mark.parametrize("inputs, message", BAD)
def test_bad_molecules_are_refused(inputs, message):
    with pytest.raises(UserError, match=message):
        two_targets().predict(inputs())


def with_near_overlap():
    inputs = padded(["H2O"])
    inputs["R"][0, 1] = inputs["R"][0, 0] + [0, 0, 1e-12]
    return inputs


@pytest.mark.parametrize(
    "inputs, message",
    [
        (with_near_overlap, "molecule 0 has two atoms 1e-12 Ang apart, closer than 0.3 Ang"),
        (lambda: {"Z": [8, 1, 1], "R": np.zeros((2, 3))}, r"Z must be \(molecules, atoms\) and R"),
        (lambda: ["H2O"], "molecule 0 must be an ase.Atoms, got str"),
    ],
)
def test_inputs_that_look_right(inputs, message):
    with pytest.raises(UserError, match=message):
        two_targets().predict(inputs())


@pytest.mark.parametrize(
    "one",
    [
        lambda atoms: atoms,
        lambda atoms: {"Z": atoms.numbers, "R": atoms.positions},
        lambda atoms: {"Z": atoms.numbers.tolist(), "R": atoms.positions.tolist(), "charge": 0, "spin": 1},
        lambda atoms: {"Z": tf.constant(atoms.numbers), "R": tf.constant(atoms.positions)},
    ],
)
def test_one_molecule_has_no_axis_of_molecules(one):
    predictor, atoms = dimenet_tf.load("dimenet_pp-ethanol_xtb-forces"), molecule("CH3CH2OH")
    predicted, expected = predictor.predict(one(atoms)), predictor.predict([atoms])
    assert {name: np.shape(value) for name, value in predicted.items()} == {
        "energy": (),
        "forces": (9, 3),
        "in_domain": (),
    }
    for name, value in expected.items():
        np.testing.assert_array_equal(predicted[name], value[0])


def test_steps_are_batches():
    predictor, inputs = two_targets(), padded(["H2O", "CO2", "H2O"])
    expected = predictor.predict(inputs)["U0"]
    repeated = tf.data.Dataset.from_tensor_slices(inputs).batch(2).repeat()
    np.testing.assert_allclose(predictor.predict(repeated, steps=3)["U0"], expected[[0, 1, 2, 0, 1]], rtol=1e-6)
    np.testing.assert_allclose(predictor.predict(x=inputs, batch_size=2, steps=1)["U0"], expected[:2], rtol=1e-6)
    with pytest.raises(UserError, match="steps = 0 must be at least 1"):
        predictor.predict(inputs, steps=0)


def test_calls_with_molecules_name_what_takes_them():
    model = dimenet_tf.build_model("painn", emb_size=8, num_blocks=1)
    atoms = molecule("H2O")
    for inputs, kind in ((atoms, "Atoms"), ([atoms], "list"), ({"Z": [8], "R": [[0, 0, 0]]}, "dict")):
        with pytest.raises(UserError, match=rf"PaiNN takes a Graph .*, got {kind}\. .*predictor\.predict\(molecules\)"):
            model(inputs)
    for inputs, message in (
        (atoms, r"got Atoms\. Molecules in other forms are predicted by predictor\.predict"),
        ({"Z": [[8]]}, r"got \['Z'\]"),
        ({"Z": atoms.numbers, "R": atoms.positions}, r"got 'Z': \(3,\)\. predictor\.predict takes one molecule"),
    ):
        with pytest.raises(UserError, match=message):
            two_targets()(inputs)


def test_any_iterable_of_molecules():
    predictor = two_targets()
    np.testing.assert_allclose(
        predictor.predict(molecule(n) for n in NAMES)["U0"], predictor.predict([molecule(n) for n in NAMES])["U0"]
    )


def test_damaged_folders(tmp_path):
    two_targets().to_folder(tmp_path)
    (tmp_path / "weights.h5").write_bytes(b"no HDF5")
    with pytest.raises(UserError, match="weights.h5 cannot be read"):
        dimenet_tf.load(tmp_path)
    (tmp_path / "predictor.json").write_text("{")
    with pytest.raises(UserError, match="predictor.json cannot be read"):
        dimenet_tf.load(tmp_path)


def test_nothing_to_predict():
    assert two_targets().predict([])["U0"].shape == (0,)
    empty = two_targets().with_forces("U0").predict({"Z": np.zeros((0, 7), int), "R": np.zeros((0, 7, 3))})
    assert empty["U0"].shape == (0,) and empty["forces"].shape == (0, 7, 3)


def test_loading_errors(tmp_path):
    with pytest.raises(UserError, match="no such run or model"):
        dimenet_tf.load(tmp_path / "nowhere")
    with pytest.raises(UserError, match="holds no trained model"):
        dimenet_tf.load(tmp_path)


def test_weights_that_do_not_fit_are_named(tmp_path):
    predictor = two_targets()
    weights = {name: v.numpy() for name, v in named_variables(predictor.model).items()}
    name = "int_blocks/0/dense_ji/kernel"
    with pytest.raises(UserError, match=f"here: no weight '{name}'"):
        assign_weights(predictor.model, {k: v for k, v in weights.items() if k != name}, "here")
    with pytest.raises(UserError, match="unexpected weight 'extra'"):
        assign_weights(predictor.model, {**weights, "extra": np.zeros(1)}, "here")
    with pytest.raises(UserError, match=rf"'{name}' has shape \(2, 3\), expected \(16, 16\)"):
        assign_weights(predictor.model, {**weights, name: np.zeros((2, 3))}, "here")


def test_weight_file_is_plain_hdf5(tmp_path):
    predictor = two_targets()
    predictor.to_folder(tmp_path)
    with h5py.File(tmp_path / "weights.h5") as file:
        kernel = file["int_blocks/1/up_projection/kernel"][()]
    np.testing.assert_array_equal(kernel, predictor.model.int_blocks[1].up_projection.kernel)
