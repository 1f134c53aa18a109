"""Heads: dipoles, polarizabilities and what else is made of the atoms' scalars and vectors."""

import json
import re
import subprocess
import sys
import textwrap

import ase.io
import numpy as np
import pytest
import tensorflow as tf
from ase import Atoms
from ase.build import molecule
from ase.data import atomic_masses
from scipy.spatial.transform import Rotation

from dimenet_tf.bulk import predict_file
from dimenet_tf.config.build import build_head, build_predictor
from dimenet_tf.config.schema import resolve
from dimenet_tf.data import DataContainer, ethanol_xtb, from_atoms, load_dataset, read_file
from dimenet_tf.data.dataset import DataConfig
from dimenet_tf.errors import UserError
from dimenet_tf.md import Committee, DimeNetCalculator
from dimenet_tf.predictor import load
from dimenet_tf.properties.columns import Columns
from dimenet_tf.properties.heads import Head, choose_head, scalar_head
from dimenet_tf.properties.property import Property
from dimenet_tf.runs.folder import RunFolder
from dimenet_tf.structures.splits import Split
from dimenet_tf.training.report import report
from helpers.equivariant import ALL_HEADS, predictor_with
from helpers.models import SMALL, force_field, graph_of, randomize
from helpers.molecules import molecules
from helpers.numerics import slope
from helpers.training import configuration, trainer_of

pytestmark = pytest.mark.usefixtures("equivariant")
ATOMS = ["CH3CH2OH", "H2O", "HCN"]
WITHOUT_VECTORS = {name: head for name, head in ALL_HEADS.items() if name != "polarizability"}


def close(ours, theirs, name, tolerance=1e-12) -> None:
    """Equal to 1e-12 of the largest component."""
    size = np.abs(theirs).max()
    assert size > 0.01, name
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=tolerance * size, err_msg=name)


def by_hand(predictor, N, Z, R) -> dict[str, np.ndarray]:
    """The equations, molecule by molecule, in plain NumPy."""
    outputs = predictor.model(graph_of(N, Z, R, predictor.model))
    scalars, vectors = outputs.scalars.numpy(), outputs.vectors.numpy()
    head, values = predictor.head, {name: [] for name in predictor.head.targets}
    plain = [name for name in head.targets if not head[name].vector]
    for end, n in zip(np.cumsum(N), N):
        own = slice(end - n, end)
        centered = R[own] - R[own].mean(axis=0)
        for part in head.parts:
            name = part.target
            if part.vector:
                k = [p for p in head.targets if head[p].vector].index(name)
                q, v = scalars[own, len(plain) + k], vectors[own, k]
            else:
                q, v = scalars[own, plain.index(name)], np.zeros((n, 3))
            if part.name == "sum":
                value = part.offset + part.per_element[Z[own]].sum() + part.scale * q.sum()
            elif part.name in ("dipole", "dipole_magnitude"):
                neutral = q - q.mean()  # whatever the origin
                value = part.scale * (v + neutral[:, None] * (R[own] + [7.0, -3.0, 2.0])).sum(axis=0)
                value = value if part.name == "dipole" else np.linalg.norm(value)
            elif part.name == "polarizability":
                value = (part.offset + part.per_element[Z[own]].sum()) * np.eye(3)
                for i in range(n):
                    value += part.scale * (q[i] * np.eye(3) + np.outer(v[i], centered[i]) + np.outer(centered[i], v[i]))
            else:
                masses = atomic_masses[Z[own]]
                center = (masses[:, None] * R[own]).sum(axis=0) / masses.sum()
                value = part.scale * (q * ((R[own] - center) ** 2).sum(axis=1)).sum()
            values[name].append(value)
    return {name: np.array(value) for name, value in values.items()}


@pytest.mark.parametrize("name, heads", [("equivariant", ALL_HEADS), ("dimenet_pp", WITHOUT_VECTORS)])
def test_heads_are_the_papers_equations(name, heads):
    predictor = predictor_with(name, heads)
    N, Z, R = molecules(*ATOMS)
    expected = by_hand(predictor, N, Z, R)
    predicted = predictor.predict([molecule(each) for each in ATOMS])
    assert list(predicted) == [*heads, "forces"]
    for target, values in expected.items():
        assert predicted[target].dtype == np.float64
        close(predicted[target], values, target)


@pytest.mark.parametrize("name, heads", [("equivariant", ALL_HEADS), ("dimenet_pp", WITHOUT_VECTORS)])
@pytest.mark.parametrize("reflected", [False, True])
def test_vectors_and_tensors_turn_with_the_molecule(name, heads, reflected):
    predictor = predictor_with(name, heads)
    frames = [molecule(each) for each in ATOMS]
    turn = Rotation.random(random_state=3).as_matrix() * (-1 if reflected else 1)
    before = predictor.predict(frames)
    for atoms in frames:
        atoms.positions = (atoms.positions + [3.0, -2.0, 5.0]) @ turn.T
    after = predictor.predict(frames)
    for target, values in before.items():
        if target == "polarizability":
            values = turn @ values @ turn.T
            np.testing.assert_allclose(after[target], after[target].transpose(0, 2, 1), rtol=0, atol=1e-12)
        elif target in ("dipole", "forces"):
            values = values @ turn.T
        close(after[target], values, target)


def test_shares_of_atoms_sum_to_every_property():
    predictor = predictor_with()
    N, Z, R = molecules(*ATOMS)
    prediction = predictor.predict_store(predictor.graph_store(N, Z, R), np.arange(len(N)))
    assert prediction.shares.shape == (len(Z), 1 + 3 + 1 + 9 + 1)
    sums = np.add.reduceat(prediction.shares, np.cumsum(N) - N)
    np.testing.assert_allclose(sums, prediction.values, rtol=1e-12, atol=1e-12)  # some are zero by symmetry


def test_a_vanishing_dipole_has_a_finite_slope():
    """A single atom and CO2, whose dipole is zero by symmetry, have finite values, first and second derivatives."""
    predictor = predictor_with(heads={"mu": "dipole_magnitude"}, energy=None)
    graph = graph_of(*molecules("H", "CO2"), predictor.model)
    positions = tf.constant(graph.positions)
    with tf.GradientTape() as second:
        second.watch(positions)
        with tf.GradientTape() as first:
            first.watch(positions)
            values = predictor.compute(graph._replace(positions=positions)).values
        slope = tf.convert_to_tensor(first.gradient(values, positions))
    np.testing.assert_allclose(values, 0, atol=1e-12)
    assert np.isfinite(slope).all() and np.isfinite(second.gradient(slope, positions)).all()


def test_forces_beside_other_properties_are_the_energys():
    predictor = predictor_with()
    atoms = molecule("H2O")
    forces = predictor.predict([atoms])["forces"][0]
    numeric = -slope(predictor, atoms, "energy").reshape(-1, 3)
    np.testing.assert_allclose(forces, numeric, rtol=0, atol=1e-6 * np.abs(forces).max())
    assert np.isfinite(predictor.hessian(atoms)).all()


def test_where_a_model_is_told_how_many_scalars_and_vectors():
    data = dataset("polarizability,energy,forces,dipole")
    predictor = build_predictor(resolve({"model": {"name": "equivariant"}}), data)
    config = predictor.model.get_config()
    assert (config["num_targets"], config["num_vectors"]) == (3, 2)
    # plain ones first, then those of the vectors
    assert predictor.head.scalars == ["energy", "polarizability", "dipole"]
    assert predictor.head.with_vector == ["polarizability", "dipole"]
    assert predictor.head.columns["energy"] == slice(9, 10)
    assert predictor.units == {"polarizability": "a0^3", "energy": "eV", "dipole": "e*Ang", "forces": "eV/Ang"}
    model = build_predictor(resolve({"model": {"name": "dimenet_pp", **SMALL["dimenet_pp"]}}), dataset("dipole")).model
    assert model.num_targets == 1 and "num_vectors" not in model.get_config()


def dataset(target, train=30, **options):
    config = DataConfig(name="ethanol_xtb", target=target, **options)
    everything = ethanol_xtb().select(range(0, 2000, 40))
    order = np.arange(len(everything))
    return load_dataset(config, Split(order[:train], order[train : train + 10], order[train + 10 :]), everything)


@pytest.mark.parametrize(
    "names, asked, options, expected",
    [
        ("U0,dipole", {}, {}, ["sum", "dipole"]),
        ("mu,r2", {}, {}, ["sum", "sum"]),
        ("mu,r2", {}, {"extensive": False}, ["mean", "mean"]),
        ("mu,r2,polarizability", {}, {"vectors": True}, ["dipole_magnitude", "spatial_extent", "polarizability"]),
        ("mu,r2", {"mu": "dipole_magnitude", "r2": "mean"}, {}, ["dipole_magnitude", "mean"]),
        ("mu,r2", {"mu": "sum"}, {"vectors": True}, ["sum", "spatial_extent"]),
    ],
)
def test_which_head_a_target_has(names, asked, options, expected):
    properties = [Property.of(name, head=asked.get(name)) for name in names.split(",")]
    chosen = [choose_head(each, **{"extensive": True, "vectors": False, **options}) for each in properties]
    assert [head("t", "").name for head in chosen] == expected


def test_a_property_of_the_data_is_that_of_the_model():
    """Name, unit, shape, columns and fitted reference of a target are those of the prediction."""
    data = dataset("polarizability,energy,forces,dipole")
    head = build_head(resolve({"model": {"name": "equivariant"}})["model"], data)
    assert list(head.properties) == list(data.properties) == ["polarizability", "energy", "dipole"]
    for name, learned in data.properties.items():
        predicted, fit = head.properties[name], data.fitted(name, head[name].additive).reference
        assert predicted.quantity == learned.quantity and predicted.columns == learned.columns == data.columns[name]
        assert predicted.head == head[name].name
        np.testing.assert_array_equal(predicted.reference.per_element, fit.per_element)
        assert predicted.reference[1:] == fit[1:]
    assert data.energy == "energy"  # its scale is that of the forces
    forces = data.container.select(data.split.train).labels("forces")
    assert head.properties["energy"].reference.scale == pytest.approx(np.sqrt((forces**2).mean()))


@pytest.mark.parametrize(
    "model, target, heads, message",
    [
        ("dimenet_pp", "energy", {"mu": "sum"}, "unknown target in data.heads 'mu'"),
        (
            "dimenet_pp",
            "energy",
            {"energy": "summ"},
            "data.heads.energy must be one of sum, mean, dipole_mag",
        ),
        ("dimenet_pp", "dipole", {"dipole": "sum"}, r"data.heads.dipole must be one of dipole; got 'sum'$"),
        (
            "dimenet_pp",
            "polarizability",
            {},
            r"'polarizability' requires a model with vector outputs \(.*equivariant\)",
        ),
    ],
)
def test_heads_that_do_not_fit(model, target, heads, message):
    with pytest.raises(UserError, match=message):
        build_head(resolve({"model": {"name": model}})["model"], dataset(target, heads=heads))


def test_references_and_scales():
    data = dataset("energy,dipole,polarizability", references="fit")
    labels = {name: data.container.select(data.split.train).target(name) for name in data.names}
    head = build_head(resolve({"model": {"name": "equivariant"}})["model"], data)
    assert head["dipole"].scale == pytest.approx(np.sqrt((labels["dipole"] ** 2).mean()))
    third = np.trace(labels["polarizability"], axis1=1, axis2=2) / 3
    part = head["polarizability"]
    # ethanol alone: the fit is the mean
    assert part.per_element @ data.container.composition()[0] == pytest.approx(third.mean())
    rest = labels["polarizability"] - third.mean() * np.eye(3)
    assert part.scale == pytest.approx(np.sqrt((rest**2).mean()))
    assert head["energy"].scale == pytest.approx(labels["energy"].std(), rel=1e-4)
    baseline = data.columns.split(data.baseline())
    assert not baseline["dipole"].any()
    np.testing.assert_allclose(baseline["polarizability"][0], third.mean() * np.eye(3), atol=1e-10)
    everything = data.container.target("polarizability")
    third = np.trace(everything, axis1=1, axis2=2).mean() / 3
    assert data.sigmas["polarizability"] == pytest.approx(np.sqrt(((everything - third * np.eye(3)) ** 2).mean()))


def test_a_magnitude_has_no_reference():
    N, Z, R = molecules("CH3CH2OH", "H2O", "HCN", "NH3", "CO")
    data = DataContainer(N, Z, R, {"mu": [1.7, 1.9, 3.0, 1.5, 0.1]})
    config = DataConfig(target="mu", heads={"mu": "dipole_magnitude"})
    split = Split(np.arange(3), np.array([3]), np.array([4]))
    part = build_head(resolve({})["model"], load_dataset(config, split, data))["mu"]
    assert part.scale == pytest.approx(np.std([1.7, 1.9, 3.0])) and not part.vector and not part.additive
    given = DataConfig(target="mu", heads={"mu": "dipole_magnitude"}, references=dict.fromkeys("HCNO", 1.0))
    mean = DataConfig(target="mu", heads={"mu": "dipole_magnitude"}, references="mean")
    with pytest.raises(UserError, match="data.references = mean: nothing is added to mu"):
        build_head(resolve({})["model"], load_dataset(mean, split, data))
    zeros = resolve({"model": {"output_init": "zeros"}})["model"]
    with pytest.raises(UserError, match="model.output_init: zeros: a length of zero has no slope, mu would never"):
        build_head(zeros, load_dataset(config, split, data))
    with pytest.raises(UserError, match="nothing is added to mu"):
        build_head(resolve({})["model"], load_dataset(given, split, data))


def test_everything_survives_saving_and_cloning(tmp_path):
    predictor, frames = predictor_with(), [molecule(name) for name in ATOMS]
    expected = predictor.predict(frames)
    predictor.to_folder(tmp_path / "folder")
    predictor.save(tmp_path / "predictor.keras")
    for other in (
        load(tmp_path / "folder"),
        predictor.clone(),
        tf.keras.models.load_model(tmp_path / "predictor.keras"),
    ):
        assert other.get_config() == predictor.get_config() and other.units == predictor.units
        for name, values in other.predict(frames).items():
            np.testing.assert_array_equal(values, expected[name])


@pytest.mark.parametrize("extensive", [True, False])
def test_descriptions_of_format_1_are_read(extensive):
    old = {
        "targets": ["U0", "mu"],
        "units": ["eV", "D"],
        "per_element": np.linspace(0, 1, 190).reshape(2, 95).tolist(),
        "offset": [3.0, 1.5],
        "scale": [0.5, 2.0],
        "extensive": extensive,
    }
    assert Head.from_config(old).get_config() == scalar_head(**old).get_config()
    assert [part["head"] for part in Head.from_config(old).get_config()] == ["sum" if extensive else "mean"] * 2


def test_columns_of_arrays_and_tensors():
    columns = Columns({"a": (), "t": (3, 3), "v": (3,)})
    array = np.arange(26.0).reshape(2, 13)
    assert columns.width == 13 and columns["t"] == slice(1, 10)
    split = columns.split(array)
    assert [split[name].shape for name in "atv"] == [(2,), (2, 3, 3), (2, 3)] and split["t"][0, 1, 0] == 4.0
    np.testing.assert_array_equal(columns.join(split), array)
    np.testing.assert_array_equal(columns.join(columns.split(tf.constant(array))), array)


@pytest.mark.parametrize("energy", ["mu", "dipole"])
def test_what_is_no_energy_is_refused_as_one(energy):
    predictor = predictor_with(heads={"mu": "dipole_magnitude", "dipole": "dipole"}, energy=None)
    with pytest.raises(UserError, match="was not trained with forces"):
        DimeNetCalculator(predictor)
    with pytest.raises(UserError, match=f"forces need an energy in eV: '{energy}' is a dipole"):
        DimeNetCalculator(predictor, energy=energy)


def test_calculator_has_the_dipole_and_the_polarizability():
    predictor, atoms = predictor_with(), molecule("CH3CH2OH")
    atoms.calc = DimeNetCalculator(predictor)
    expected = predictor.predict([atoms])
    np.testing.assert_allclose(atoms.get_dipole_moment(), expected["dipole"][0], rtol=0, atol=1e-12)
    np.testing.assert_allclose(atoms.calc.polarizability, expected["polarizability"][0], rtol=0, atol=1e-12)
    assert atoms.get_potential_energies().sum() == pytest.approx(expected["energy"][0], rel=1e-12)
    assert set(atoms.calc.export_properties()) >= {"energy", "forces", "dipole"}  # ASE knows each
    atoms.calc = DimeNetCalculator(force_field())
    with pytest.raises(ase.calculators.calculator.PropertyNotImplementedError):
        atoms.get_dipole_moment()


def test_committees_average_vectors_too():
    members = [predictor_with() for _ in range(2)]
    randomize(members[1].model, seed=1)
    committee, atoms = Committee(members), molecule("H2O")
    atoms.calc = DimeNetCalculator(committee)
    mean = np.mean([member.predict([atoms])["dipole"][0] for member in members], axis=0)
    np.testing.assert_allclose(atoms.get_dipole_moment(), mean, rtol=0, atol=1e-12)
    with pytest.raises(UserError, match="member 1 of the committee has its targets in another order"):
        turned = dict(reversed(ALL_HEADS.items()))
        Committee([members[0], predictor_with(heads=turned)])


# where vectors and tensors go


def test_served_models_return_arrays(tmp_path):
    """In a process that has neither this library nor the model's code."""
    predictor = predictor_with()
    predictor.export(tmp_path / "1")
    Z, R = np.zeros((3, 9), np.int32), np.zeros((3, 9, 3))
    for i, atoms in enumerate(map(molecule, ATOMS)):
        Z[i, : len(atoms)], R[i, : len(atoms)] = atoms.numbers, atoms.positions
    np.savez(tmp_path / "in.npz", Z=Z, R=R)
    code = f"""
        import sys
        sys.modules["dimenet_tf"] = None  # importing it fails
        import numpy as np, tensorflow as tf
        given = np.load({str(tmp_path / "in.npz")!r})
        Z, R, real = given["Z"], given["R"], given["Z"] != 0
        call = tf.saved_model.load({str(tmp_path / "1")!r}).signatures
        flat = dict(Z=Z[real], R=R[real], molecule_of_atom=np.nonzero(real)[0].astype(np.int32))
        # all pairs of atoms of a molecule: those beyond the cutoff are dropped
        source, target = np.nonzero(np.equal.outer(flat["molecule_of_atom"], flat["molecule_of_atom"]))
        pairs = np.stack([source, target])[:, source != target].astype(np.int32)
        asked = dict(serving_default=dict(Z=Z, R=R), flat=flat)
        asked["edges"] = dict(flat, edge_source=pairs[0], edge_target=pairs[1])
        for name, arrays in asked.items():
            out = call[name](**{{k: tf.constant(v) for k, v in arrays.items()}})
            np.savez({str(tmp_path)!r} + f"/{{name}}.npz", **{{k: v.numpy() for k, v in out.items()}})
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True, cwd=tmp_path)
    expected, called = predictor.predict({"Z": Z, "R": R}), predictor({"Z": Z, "R": R})
    real = Z != 0
    for signature in ("serving_default", "flat", "edges"):
        answer = np.load(tmp_path / f"{signature}.npz")
        assert set(answer) == set(predictor.units)
        for name, values in expected.items():
            close(called[name].numpy(), values, name)
            close(answer[name], values[real] if name == "forces" and signature != "serving_default" else values, name)
    metadata = json.loads((tmp_path / "1/assets/metadata.json").read_text())
    assert metadata["signatures"]["flat"]["outputs"]["polarizability"]["shape"] == [None, 3, 3]


@pytest.mark.parametrize("energy", ["energy", None])
def test_files_hold_vectors_and_tensors(tmp_path, monkeypatch, energy):
    monkeypatch.chdir(tmp_path)
    predictor = predictor_with(energy=energy)
    predictor.to_folder("model")
    frames = [molecule(name) for name in (*ATOMS, "CH4", "SiH4")]  # silicon is unknown to the model
    ase.io.write("in.extxyz", frames)
    for target in ("out.extxyz", "out.npz"):
        predict_file("model", "in.extxyz", target, piece=2, on_bad="skip")
    good = read_file("in.extxyz").select(range(4))
    expected = predictor.predict([frames[i] for i in range(4)])
    with np.load("out.npz") as arrays:
        for name, shape in predictor.head.columns.shapes.items():
            assert arrays[name].shape == (5, *shape) and np.isnan(arrays[name][4]).all()
            close(arrays[name][:4], expected[name], name, 1e-7)  # positions have eight digits in the file
    written = ase.io.read("out.extxyz", ":4")
    # what is written is read again, as labels
    data = from_atoms(written, "written")
    np.testing.assert_array_equal(data.R, good.R)
    for name in predictor.head.targets:
        close(data.target(name), expected[name], name, 1e-7)
    close(np.array([atoms.get_dipole_moment() for atoms in written]), expected["dipole"], "dipole", 1e-7)


# training


def test_charges_alone_learn_a_dipole(tmp_path):
    settings = {"num_steps": 60, "batch_size": 10, "learning_rate": 5e-3, "warmup_steps": 5, "ema_decay": 0.5}
    config = configuration(**settings, evaluation_interval=60)
    trainer = trainer_of(config, tmp_path, dataset("dipole"))
    before = trainer.validation.run(trainer.predictor, trainer.optimizer)
    trainer.run()
    (row,) = RunFolder(tmp_path).read_metrics()
    assert row["mae_dipole"] < 0.5 * before.table["targets"]["dipole"]["mae"]
    text = report(load(tmp_path), trainer.dataset, RunFolder(tmp_path))
    assert re.search(r"^dipole +e\*Ang ", text, re.MULTILINE)
    test = trainer.dataset.container.select(trainer.dataset.split.test)
    predicted = load(tmp_path).predict([Atoms(one.Z, one.R) for one in map(test.select, np.arange(10)[:, None])])
    result = json.loads((tmp_path / "test.json").read_text())["targets"]["dipole"]
    error = predicted["dipole"] - test.target("dipole")
    assert result["mae"] == pytest.approx(np.abs(error).mean(), rel=1e-4)
    assert result["rmse"] == pytest.approx(np.sqrt((error**2).mean()), rel=1e-4)


def test_a_model_of_everything(tmp_path):
    """Energy, forces, dipole and polarizability, squared errors with weights."""
    weights = {"dipole": 0.1, "polarizability": 0.1}
    config = configuration(num_steps=4, evaluation_interval=2, loss="mse", weights=weights)
    config["model"] = resolve({"model": {"name": "equivariant"}})["model"]
    trainer = trainer_of(config, tmp_path, dataset("energy,forces,dipole,polarizability"))
    trainer.run()
    assert {"mae_energy", "mae_forces", "mae_dipole", "mae_polarizability"} <= set(
        RunFolder(tmp_path).read_metrics()[0]
    )
    predicted = load(tmp_path).predict([molecule("CH3CH2OH")] * 2)
    shapes = {"energy": (2,), "dipole": (2, 3), "polarizability": (2, 3, 3), "forces": (2, 9, 3)}
    shapes["in_domain"] = (2,)
    assert {name: values.shape for name, values in predicted.items()} == shapes
    report(load(tmp_path), trainer.dataset, RunFolder(tmp_path))
    assert (tmp_path / "plots/test_polarizability.png").stat().st_size > 10_000
