"""Exported models, as those see them who have TensorFlow but not this library."""

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from ase.build import molecule
from tensorflow_serving.apis import predict_pb2, prediction_log_pb2

import dimenet_tf
from dimenet_tf.errors import UserError
from helpers.models import force_field
from helpers.paths import ROOT
from helpers.serving import NAMES, call, flat, padded, with_edges

SIGNATURES = {"serving_default", "flat", "edges"}


@pytest.fixture(scope="module", params=["dimenet-forces", "dimenet_pp-forces", "dimenet_pp-float64", "dimenet_pp-two"])
def case(request, tmp_path_factory):
    """A predictor and the path of its SavedModel."""
    name, what = request.param.split("-")
    options = {
        "forces": {"dtype": "float32"},
        "float64": {"dtype": "float64"},
        "two": {"dtype": "float32", "energy": None, "targets": ("U0", "mu")},
    }[what]
    predictor = force_field(name, randomized=False, **options)
    path = tmp_path_factory.mktemp("served") / "1"
    predictor.export(path, max_atoms=50)
    return predictor, path


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """A loaded model with forces, its predictor and its path."""
    predictor = force_field(randomized=False, dtype="float32")
    path = tmp_path_factory.mktemp("served") / "1"
    predictor.export(path, max_atoms=50)
    return tf.saved_model.load(str(path)), predictor, path


def test_all_signatures_give_the_predictors_numbers(case):
    predictor, path = case
    loaded = tf.saved_model.load(str(path))
    assert set(loaded.signatures) == SIGNATURES
    inputs = padded(dtype=predictor.dtype)
    real = inputs["Z"] != 0
    expected = predictor.predict(inputs)
    answers = {
        "serving_default": call(loaded, "serving_default", inputs),
        "flat": call(loaded, "flat", flat(inputs)),
        "edges": call(loaded, "edges", with_edges(flat(inputs))),
    }
    for signature, answer in answers.items():
        assert set(answer) == set(predictor.units), signature
        for name in predictor.head.targets:
            assert answer[name].dtype == np.float64 and answer[name].shape == (4,)
            np.testing.assert_allclose(answer[name], expected[name], rtol=1e-6, atol=1e-6)
        if predictor.energy is not None:
            forces = answer["forces"] if signature != "serving_default" else answer["forces"][real]
            scale = np.abs(expected["forces"]).max()
            np.testing.assert_allclose(forces, expected["forces"][real], rtol=0, atol=1e-5 * scale)
    if predictor.energy is not None:
        assert not answers["serving_default"]["forces"][~real].any()


def test_a_call_of_the_predictor_is_what_is_served(case):
    predictor, path = case
    inputs = padded(dtype=predictor.dtype)
    answer = call(tf.saved_model.load(str(path)), "serving_default", inputs)
    for name, value in predictor(inputs).items():
        np.testing.assert_allclose(answer[name], value, rtol=1e-6, atol=1e-5 * np.abs(value).max())


def test_it_needs_nothing_of_this_library(served, tmp_path):
    _, predictor, path = served
    inputs = padded()
    np.savez(tmp_path / "in.npz", **inputs)
    code = f"""
        import sys
        sys.modules["dimenet_tf"] = None  # importing it fails
        import numpy as np, tensorflow as tf
        arrays = np.load({str(tmp_path / "in.npz")!r})
        model = tf.saved_model.load({str(path)!r})
        out = model.signatures["serving_default"](Z=tf.constant(arrays["Z"]), R=tf.constant(arrays["R"]))
        np.savez({str(tmp_path / "out.npz")!r}, **{{k: v.numpy() for k, v in out.items()}})
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True, cwd=tmp_path)
    answer, expected = np.load(tmp_path / "out.npz"), predictor.predict(inputs)
    for name in expected:
        np.testing.assert_allclose(answer[name], expected[name], rtol=1e-5, atol=1e-5)


def test_loading_says_nothing_and_gradients_are_refused(served, tmp_path):
    _, _, path = served
    code = f"""
        import tensorflow as tf
        model = tf.saved_model.load({str(path)!r})
        R = tf.constant([[[0.0, 0.0, 0.0], [0.0, 0.0, 1.0]]])
        try:
            with tf.GradientTape() as tape:
                tape.watch(R)
                energy = model.signatures["serving_default"](Z=tf.constant([[8, 1]]), R=R)["energy"]
            print("gradient", tape.gradient(energy, R))
        except LookupError as error:
            print("refused:", error)
    """
    result = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], text=True, capture_output=True)
    assert result.stderr == ""
    assert "refused" in result.stdout and "dimenet_tf.load(path)" in result.stdout


def test_saved_model_cli(served, tmp_path):
    _, predictor, path = served
    inputs = padded()
    for name, array in inputs.items():
        np.save(tmp_path / f"{name}.npy", array)
    program = Path(sys.executable).with_name("saved_model_cli")
    command = [program, "run", "--dir", str(path), "--tag_set", "serve", "--signature_def", "serving_default"]
    command += ["--inputs", f"Z={tmp_path / 'Z.npy'};R={tmp_path / 'R.npy'}", "--outdir", str(tmp_path)]
    subprocess.run(command, check=True, capture_output=True)
    np.testing.assert_allclose(np.load(tmp_path / "energy.npy"), predictor.predict(inputs)["energy"], rtol=1e-6)


def test_c_interface(served, tmp_path):
    """TF_LoadSessionFromSavedModel and TF_SessionRun, in a process without TensorFlow's Python."""
    _, predictor, path = served
    atoms = molecule("H2O")
    arguments = [str(path), json.dumps(atoms.numbers.tolist()), json.dumps(atoms.positions.tolist())]
    script = ROOT / "tests/helpers/c_interface.py"
    result = subprocess.run([sys.executable, str(script), *arguments], text=True, capture_output=True)
    assert result.returncode == 0, result.stderr
    answer = json.loads(result.stdout.splitlines()[-1])
    expected = predictor.predict([atoms])
    assert answer["energy"] == pytest.approx(expected["energy"][0], rel=1e-7)
    np.testing.assert_allclose(answer["forces"], expected["forces"][0], atol=1e-4)


def from_json(body: dict, signature) -> dict[str, tf.Tensor]:
    """Tensors of a REST request, as TensorFlow Serving makes them: `instances` in rows, or `inputs` in columns."""
    if "instances" in body:
        rows = body["instances"]
        columns = {name: [row[name] for row in rows] for name in rows[0]}
    else:
        columns = body["inputs"]
    specs = signature.structured_input_signature[1]
    return {name: tf.constant(values, specs[name].dtype) for name, values in columns.items()}


def test_json_bodies_of_the_rest_interface(served):
    loaded, predictor, _ = served
    inputs = padded()
    signature = loaded.signatures["serving_default"]
    rows = [{"Z": z.tolist(), "R": r.tolist()} for z, r in zip(inputs["Z"], inputs["R"])]
    columns = {name: array.tolist() for name, array in inputs.items()}
    expected = predictor.predict(inputs)
    for body in ({"instances": rows}, {"inputs": columns}):
        answer = signature(**from_json(json.loads(json.dumps(body)), signature))
        assert all(value.shape[0] == len(rows) for value in answer.values())  # rows go back one by one
        np.testing.assert_allclose(answer["energy"], expected["energy"], rtol=1e-6)
    molecules = json.loads(json.dumps({"inputs": {name: array.tolist() for name, array in flat(inputs).items()}}))
    answer = loaded.signatures["flat"](**from_json(molecules, loaded.signatures["flat"]))
    np.testing.assert_allclose(answer["energy"], expected["energy"], rtol=1e-6)


def test_requests_of_grpc_clients(served):
    loaded, predictor, _ = served
    inputs = padded()
    request = predict_pb2.PredictRequest()
    request.model_spec.name, request.model_spec.signature_name = "molecules", "serving_default"
    for name, array in inputs.items():
        request.inputs[name].CopyFrom(tf.make_tensor_proto(array))
    received = predict_pb2.PredictRequest.FromString(request.SerializeToString())
    arrays = {name: tf.make_ndarray(proto) for name, proto in received.inputs.items()}
    answer = call(loaded, received.model_spec.signature_name, arrays)
    np.testing.assert_allclose(answer["energy"], predictor.predict(inputs)["energy"], rtol=1e-6)


def test_warm_up_requests_run(case):
    _, path = case
    loaded = tf.saved_model.load(str(path))
    seen = set()
    for record in tf.data.TFRecordDataset(str(path / "assets.extra/tf_serving_warmup_requests")):
        request = prediction_log_pb2.PredictionLog.FromString(record.numpy()).predict_log.request
        signature = request.model_spec.signature_name
        arrays = {name: tf.make_ndarray(proto) for name, proto in request.inputs.items()}
        answer = call(loaded, signature, arrays)
        assert all(np.isfinite(value).all() for value in answer.values())
        seen.add(signature)
    assert seen == SIGNATURES


def test_what_travels_along(case):
    predictor, path = case
    metadata = json.loads((path / "assets/metadata.json").read_text())
    assert metadata["properties"] == predictor.units and metadata["elements"] == ["H", "C", "O"]
    assert metadata["cutoff"] == 5.0 and metadata["max_atoms"] == 50
    inputs = metadata["signatures"]["serving_default"]["inputs"]
    assert inputs["Z"] == {"shape": [None, None], "dtype": "int32"}
    assert inputs["R"] == {"shape": [None, None, 3], "dtype": predictor.dtype}
    again = dimenet_tf.load(path)
    before, after = (p.predict([molecule("H2O")]) for p in (predictor, again))
    assert again.get_config() == predictor.get_config()
    for ours, theirs in zip(again.get_weights(), predictor.get_weights()):
        np.testing.assert_array_equal(ours, theirs)
    for name in before:
        np.testing.assert_allclose(before[name], after[name], rtol=1e-6, atol=1e-6 * np.abs(before[name]).max())


def changed(signature="serving_default", names=NAMES, **settings):
    """A request with an entry set: R=(index, value)."""
    arrays = padded(names) if signature == "serving_default" else flat(padded(names))
    if signature == "edges":
        arrays = with_edges(arrays)
    for name, (index, value) in settings.items():
        arrays[name][index] = value
    return signature, arrays


BAD = [
    (changed(R=((1, 2), np.nan)), "a coordinate is not finite: molecule.*1"),
    (changed(R=((0, 0), np.inf)), "a coordinate is not finite: molecule.*0"),
    (changed(R=((1, 2), padded()["R"][1, 1])), "two atoms are closer than 0.3 Ang: molecule.*1"),
    (changed(Z=((3, 0), 7)), "an element that the training data did not contain: molecule.*3"),
    (changed(Z=((3, 0), 300)), "an element that the training data did not contain: molecule.*3"),
    (changed(Z=((3, 0), -6)), "an element that the training data did not contain: molecule.*3"),
    (changed(Z=(2, 0)), "a molecule has no atoms: molecule.*2"),
    (changed(Z=((0, 3), 0)), "Z = 0 is padding.*molecule.*0"),
    (("serving_default", {"Z": padded()["Z"], "R": padded()["R"][:, :-1]}), "shapes differ in axis.*1"),
    (("serving_default", {"Z": padded()["Z"][:0], "R": padded()["R"][:0]}), "holds no molecules"),
    # TensorFlow Serving's batching may pad with copies of the first element: atoms that do not exist, at one place
    (
        (
            "serving_default",
            {k: np.concatenate([v, v[:, :1], v[:, :1]], axis=1) for k, v in padded(["H2O"], 0).items()},
        ),
        "two atoms are closer than 0.3 Ang: molecule.*0",
    ),
    (changed("flat", R=(4, np.nan)), "a coordinate is not finite: molecule.*0"),
    (changed("flat", molecule_of_atom=(0, 1)), "molecule_of_atom must ascend"),
    (changed("flat", molecule_of_atom=(slice(9, 12), 4)), "must ascend"),
    (changed("flat", molecule_of_atom=(slice(9, None), 7)), "a molecule has no atoms: molecule.*1"),
    (("flat", {**flat(padded()), "molecule_of_atom": np.zeros(3, np.int32)}), "must have a row for each atom"),
    (("flat", {k: v[:0] for k, v in flat(padded()).items()}), "holds no molecules"),
    (("edges", {**with_edges(flat(padded())), "edge_source": np.zeros(5, np.int32)}), "differ in length"),
    (changed("edges", edge_source=(0, 99)), "an atom of an edge does not exist: edge.*0"),
    (changed("edges", R=(1, flat(padded())["R"][0])), "two atoms are closer than 0.3 Ang: molecule.*0"),
]


@pytest.mark.parametrize("request_, message", BAD, ids=range(len(BAD)))
def test_bad_requests_are_invalid_arguments_with_the_reason(served, request_, message):
    loaded, predictor, _ = served
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        call(loaded, *request_)
    good = padded(["H2O"])  # and the next request is answered
    np.testing.assert_allclose(
        call(loaded, "serving_default", good)["energy"], predictor.predict(good)["energy"], rtol=1e-6
    )


def chain(atoms) -> dict[str, np.ndarray]:
    R = np.zeros((1, atoms, 3), np.float32)
    R[0, :, 0] = 1.5 * np.arange(atoms)
    return {"Z": np.ones((1, atoms), np.int32), "R": R}


def test_molecules_beyond_the_limit(served):
    loaded, _, _ = served
    assert np.isfinite(call(loaded, "serving_default", chain(50))["energy"]).all()
    with pytest.raises(tf.errors.InvalidArgumentError, match="more than 50 atoms, for which this model is served"):
        call(loaded, "serving_default", chain(51))
    assert np.isfinite(call(loaded, "edges", with_edges(flat(chain(51))))["energy"]).all()  # has no limit


def test_many_shapes_of_requests(served):
    loaded, predictor, _ = served
    rng = np.random.default_rng(0)
    for _ in range(30):
        names = rng.choice(NAMES, rng.integers(1, 7)).tolist()
        inputs = padded(names, extra=int(rng.integers(0, 5)))
        energy = call(loaded, "serving_default", inputs)["energy"]
        np.testing.assert_allclose(energy, predictor.predict(inputs)["energy"], rtol=1e-6)


def test_an_export_is_never_overwritten(served):
    _, predictor, path = served
    with pytest.raises(UserError, match="exists already: a served model is never overwritten"):
        predictor.export(path)
    with pytest.raises(UserError, match="max_atoms = 0"):
        predictor.export(path.parent / "2", max_atoms=0)
    assert [p.name for p in path.parent.iterdir()] == ["1"]
