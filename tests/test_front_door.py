"""First contact: names of the package, `repr`, data sets as sequences of molecules, errors of `build_model`."""

import ast
import subprocess
import sys
from pathlib import Path

import ase.io
import numpy as np
import pytest
import tensorflow as tf
from ase import Atoms

import dimenet_tf
from dimenet_tf.config.schema import resolve
from dimenet_tf.data import DataConfig, DataContainer, ethanol_xtb, from_atoms, load_dataset, read_file, sample
from dimenet_tf.data.dataset import DATASETS
from dimenet_tf.errors import UserError, unknown_name
from dimenet_tf.graph import SkinList, graph_signature
from dimenet_tf.md import Committee, DimeNetCalculator
from dimenet_tf.models import MODELS, build_model, find_model
from dimenet_tf.models.hyperparameters import hyperparameters
from dimenet_tf.predictor import Predictor
from dimenet_tf.properties.heads import Head, Mean, Polarizability
from dimenet_tf.runs.catalog import pretrained_folders
from helpers.models import SMALL, graph_of
from helpers.molecules import molecules
from helpers.pretrained import FORCES

# the package


def test_every_listed_name_resolves():
    for module in (dimenet_tf, dimenet_tf.md):
        assert dir(module) == sorted(module.__all__)
        for name in dir(module):
            assert getattr(module, name) is not None
    names = {
        "load",
        "build_model",
        "Predictor",
        "Graph",
        "Calculator",
        "pretrained_models",
        "datasets",
        "models",
        "data",
    }
    assert names <= set(dir(dimenet_tf))
    assert dimenet_tf.models.build_model is dimenet_tf.build_model and dimenet_tf.DimeNetCalculator is DimeNetCalculator
    assert dimenet_tf.Calculator is DimeNetCalculator


@pytest.mark.parametrize("module", [dimenet_tf, dimenet_tf.md], ids=lambda module: module.__name__)
def test_type_checkers_and_editors_know_every_listed_name(module):
    body = ast.parse(Path(module.__file__).read_text()).body
    (block,) = (node for node in body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    known = {}
    exec(ast.unparse(ast.Module(block.body, [])), known)
    del known["__builtins__"]
    assert set(known) == set(module.__all__) - {"__version__"}
    assert all(getattr(module, name) is value for name, value in known.items())


def test_subpackages_resolve_in_a_fresh_interpreter():
    code = "import dimenet_tf; print(dimenet_tf.__version__, dimenet_tf.basis.SphericalBasis.__name__)"
    printed = subprocess.check_output([sys.executable, "-c", code], text=True)
    assert printed.split() == [dimenet_tf.__version__, "SphericalBasis"]


def test_names_and_pretrained_models_cost_no_tensorflow():
    code = (
        "import sys, dimenet_tf; dir(dimenet_tf), dimenet_tf.pretrained_models(), dimenet_tf.UserError; "
        "print([m for m in ('tensorflow', 'scipy', 'sympy', 'ase') if m in sys.modules])"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


def test_a_wrong_name_of_the_package():
    with pytest.raises(AttributeError, match="^module 'dimenet_tf' has no attribute 'Predicter'; did you mean 'Predic"):
        dimenet_tf.Predicter  # noqa: B018
    assert not hasattr(dimenet_tf, "xyzzy")


def test_lists_of_models_and_data_sets():
    models = dimenet_tf.pretrained_models()
    assert list(models) == list(pretrained_folders())
    assert models["dimenet-sample-U0"] == "dimenet: U0 in eV; H, C, N, O, F"
    for name, line in models.items():
        assert repr(dimenet_tf.load(name)).startswith(f"Predictor({line}; ")
    assert list(dimenet_tf.datasets()) == list(DATASETS)
    assert all(line and "\n" not in line for line in dimenet_tf.datasets().values())


# repr


def test_repr_of_predictors_and_what_holds_them():
    predictor = dimenet_tf.load(FORCES)
    shown = "Predictor(dimenet_pp: energy in eV, forces in eV/Ang; H, C, O; 215046 parameters; float32)"
    assert repr(predictor) == str(predictor) == shown
    assert repr(predictor.head) == "Head([Sum('energy', 'eV', scale=0.998459)])"
    assert repr(predictor.domain) == f"Domain({predictor.domain.summary()})"
    assert repr(DimeNetCalculator(predictor)) == f"DimeNetCalculator({shown})"
    assert repr(Committee([predictor] * 2)) == f"Committee(2 members, factor not fitted; member 0: {shown})"
    assert repr(Committee([predictor] * 2, 1.2345)).startswith("Committee(2 members, factor 1.23; ")
    head = Head([Mean("gap", "eV", 2), Polarizability("polarizability", "a0^3")])
    assert repr(head) == "Head([Mean('gap', 'eV', scale=2), Polarizability('polarizability', 'a0^3', scale=1)])"
    own = Predictor("DimeNet++", SMALL["dimenet_pp"], Head([Mean("index", "")]), [8, 1], "float64")
    assert repr(own) == f"Predictor(dimenet_pp: index; H, O; {own.count_params()} parameters; float64)"
    assert own.model_name == own.get_config()["model"]["name"] == "dimenet_pp"


def test_repr_of_graphs_is_of_shapes():
    model = build_model("dimenet_pp", **SMALL["dimenet_pp"])
    graph = graph_of([3, 2], [8, 1, 1, 1, 1], np.eye(5, 3), model)
    shown = (
        "Graph(positions (5, 3), atomic_numbers (5,), molecule_of_atom (5,), num_atoms (2,), edge_source (8,), "
        "edge_target (8,), edge_reverse (8,), atom_edges (5, 2), cutoff 5 Ang)"
    )
    assert repr(graph) == repr(graph.to_tensors()) == shown
    seen = []
    tf.function(lambda graph: seen.append(repr(graph)))(graph.to_tensors())
    assert seen == [shown.replace(", cutoff 5 Ang", "")]  # its value is not known in a function
    assert repr(graph_signature("float32", ())).startswith("Graph(positions (None, 3), atomic_numbers (None,), ")
    store = model.graph_store([3, 2], [8, 1, 1, 1, 1], np.eye(5, 3))
    assert repr(store) == "GraphStore(2 molecules, 5 atoms, 8 edges, atom_edges; cutoff 5 Ang; float32)"
    skin = SkinList([1, 1], 5.0, 0.5, (), "float32")
    assert repr(skin) == "SkinList(2 atoms; cutoff 5 Ang, skin 0.5 Ang; float32)"


def test_repr_of_data():
    data = ethanol_xtb()
    shown = "H, C, O; trajectory, energy, forces, dipole, polarizability)"
    assert repr(data) == f"DataContainer(embedded trajectory of ethanol: 2000 molecules; {shown}"
    many = DataContainer([1], [1], np.zeros((1, 3)), {f"t{i:02}": [0.0] for i in range(13)}, check=False)
    assert repr(many).endswith("t10, t11, ...)")
    assert repr(DataContainer([], [], np.empty((0, 3)))) == "DataContainer(data: 0 molecules; no targets)"
    dataset = load_dataset(DataConfig(name="ethanol_xtb", target="energy, forces"))
    assert repr(dataset) == (
        "Dataset(embedded trajectory of ethanol: energy in eV, forces in eV/Ang; "
        "1600 training, 200 validation, 200 test molecules)"
    )
    assert repr(dataset.split) == "Split(1600 train, 200 valid, 200 test)"


# a data set as a sequence of molecules


def same(a: DataContainer, b: DataContainer):
    for name in ("N", "Z", "R", "id", "charge", "spin", "weight"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name), err_msg=name)
    assert set(a.targets) == set(b.targets)
    for name, values in a.targets.items():
        np.testing.assert_array_equal(values, b.targets[name], err_msg=name)


def test_indexing_gives_molecules_and_data_sets():
    data = sample()
    atoms = data[3]
    assert isinstance(atoms, Atoms) and len(atoms) == data.N[3] and atoms.calc is None
    assert atoms.info["U0"] == data.targets["U0"][3] and atoms.info["id"] == data.id[3]
    assert "charge" not in atoms.info and "spin" not in atoms.info and "weight" not in atoms.info
    for index in (-1, np.int64(1999), np.array(1999)):
        assert data[index].info["id"] == data.id[1999]
    same(data[2:12:3], data.select([2, 5, 8, 11]))
    same(data[[5, -1, 5]], data.select([5, 1999, 5]))
    same(data[data.N == 5], data.select(np.flatnonzero(data.N == 5)))
    assert len(data[[]]) == len(data[5:5]) == 0 and data[5:5].to_atoms() == []


def test_wrong_indices():
    data = sample()[:5]
    for index in (5, -6, [0, 5], np.array([-6])):
        with pytest.raises(IndexError, match=r"^embedded sample: there is no molecule (5|-6), only 5 molecules$"):
            data[index]
    for index, got in (
        ("U0", "'U0'"),
        (1.0, "1.0"),
        (None, "None"),
        ([0.5], r"an array of float64 \(1,\)"),
        ([True], r"an array of bool \(1,\)"),
        ([[0]], r"an array of int64 \(1, 1\)"),
    ):
        with pytest.raises(TypeError, match=f"^a data set is indexed by an integer, .* mask of 5; got {got}$"):
            data[index]


def test_energies_and_forces_are_results_of_a_calculator():
    data = ethanol_xtb()[10:13]
    for i, atoms in enumerate(data):
        np.testing.assert_array_equal(atoms.get_forces(), data.targets["forces"].reshape(3, 9, 3)[i])
        assert atoms.get_potential_energy() == data.targets["energy"][i]
        np.testing.assert_array_equal(atoms.info["polarizability"], data.targets["polarizability"][i])
    atoms.get_forces()[:] = 0
    atoms.info["dipole"][:] = 0
    assert data.targets["forces"][-9:].all() and data.targets["dipole"][-1].all()  # copies


@pytest.mark.parametrize("data", [sample, ethanol_xtb])
def test_round_trip(data, tmp_path):
    data = data()[::100]
    same(from_atoms(data.to_atoms()), data)
    ase.io.write(tmp_path / "data.extxyz", data.to_atoms())
    read = read_file(tmp_path / "data.extxyz")
    assert set(read.targets) == set(data.targets)
    np.testing.assert_array_equal(read.id, data.id)
    np.testing.assert_allclose(read.R, data.R, atol=1e-7)
    for name, values in data.targets.items():
        np.testing.assert_allclose(read.targets[name], values, atol=1e-6, rtol=1e-6)


def test_round_trip_of_states_weights_and_missing_values():
    N, Z, R = molecules("H2O", "CH4", "NH3")
    forces = np.arange(3.0 * len(Z)).reshape(-1, 3)
    forces[: N[0]] = np.nan
    forces[N[0], 1] = np.nan  # one component of a molecule
    data = DataContainer(
        N,
        Z,
        R,
        {"energy": [1.0, np.nan, 3.0], "forces": forces, "own": [np.nan, 2.0, 3.0]},
        id=["a", "b", "c"],
        charge=[0, 1, -1],
        spin=[3, 2, 1],
        weight=[1, 0.5, 0],
        check=False,
    )
    first, second, third = data.to_atoms()
    assert first.calc.results == {"energy": 1.0} and set(second.calc.results) == {"forces"}
    assert first.info == {"spin": 3.0, "id": "a"}
    assert second.info == {"own": 2.0, "charge": 1.0, "spin": 2.0, "weight": 0.5, "id": "b"}
    assert third.info == {"own": 3.0, "charge": -1.0, "weight": 0.0, "id": "c"}
    back = from_atoms(data.to_atoms(), keys={"weight": "weight"}, checks=None)
    for name in ("charge", "spin"):
        back.targets.pop(name)  # numbers of `info` are targets too
    same(back, data)


def test_predict_takes_a_data_set():
    predictor, data = dimenet_tf.load(FORCES), ethanol_xtb()[:3]
    expected = predictor.predict({"Z": data.Z.reshape(3, 9), "R": data.R.reshape(3, 9, 3)})
    for name, values in predictor.predict(data).items():
        np.testing.assert_array_equal(values, expected[name], err_msg=name)


# build_model and configurations


@pytest.mark.parametrize("name", MODELS)
def test_spellings_of_names(name):
    published = {"dimenet": "DimeNet", "dimenet_pp": "DimeNet++", "gemnet": "GemNet", "painn": "PaiNN"}
    for spelling in (name, name.upper(), name.replace("_", "-"), name.replace("_", ""), published.get(name, name)):
        assert find_model(spelling) == name
        config = resolve({"model": {"name": spelling}})
        assert config == resolve({"model": {"name": name}}) and config["model"]["name"] == name
    assert type(build_model(name.replace("_", "").title(), **SMALL[name])) is MODELS[name]


@pytest.mark.parametrize("name", MODELS)
def test_wrong_hyperparameters_are_named_as_in_configurations(name):
    known = hyperparameters(MODELS[name])
    wrong = {
        "cutof": (3.0, "unknown {} 'cutof'; did you mean 'cutoff'"),
        "CutOff": (3.0, "unknown {} 'CutOff'; did you mean 'cutoff'"),
        "cutoff": ("far", "cutoff = 'far' must be a number"),
        "num_blocks": (2.5, "num_blocks = 2.5 must be an integer"),
        "num_radial": (True, "num_radial = True must be an integer"),
        "extensive": (1, "extensive = 1 must be true or false"),
        "output_init": (None, "output_init = None must be a string"),
    }
    for key, (value, message) in wrong.items():
        with pytest.raises(UserError) as own:
            build_model(name, **{key: value})
        assert message.format(f"hyperparameter of {name}") in str(own.value) and "\n" not in str(own.value)
        with pytest.raises(UserError) as configured:
            resolve({"model": {"name": name, key: value}})
        expected = str(own.value).replace(f"hyperparameter of {name}", "key")
        assert str(configured.value).replace("model.", "") == expected
    for key in {"emb_size_trip", "shared_filters", "out_emb_size"} - set(known):
        for call in (
            lambda key=key: build_model(name, **{key: 3}),
            lambda key=key: resolve({"model": {"name": name, key: 3}}),
        ):
            with pytest.raises(UserError, match=f"{key}' is a key of .*; {name} has none of that name$"):
                call()


def test_unknown_names_and_values():
    with pytest.raises(UserError, match="^unknown hyperparameter of painn 'embsize'; did you mean 'emb_size'[?]$"):
        build_model("PaiNN", embsize=3)
    for name, close in (("PaiN", "painn"), ("DimeNett++", "dimenet"), ("GemNet-T", "gemnet"), ("shpere_net", "sphe")):
        with pytest.raises(UserError, match=f"^unknown model '.*'; did you mean '{close}"):
            build_model(name)
    with pytest.raises(UserError, match="^unknown model 'mace'; known: dimenet, dimenet_pp, "):
        build_model("mace")
    with pytest.raises(UserError, match="^torsion must be one of published, smooth, none; got 'no'"):
        build_model("spherenet", torsion="no")
    with pytest.raises(UserError, match="^num_vectors must be between 0 and"):
        build_model("painn", num_vectors=2)
    with pytest.raises(
        UserError, match="^dtype must be one of float32, float64, mixed_bfloat16, tensorfloat32; got 'double'$"
    ):
        build_model("painn", dtype="double")


def test_values_are_taken_as_a_configuration_takes_them():
    model = build_model("painn", emb_size=np.int64(8), cutoff=4, num_blocks=1, num_targets=2, num_vectors=1, seed=3)
    assert (model.emb_size, model.cutoff, model.num_targets) == (8, 4.0, 2)
    assert type(model.get_config()["emb_size"]) is int and type(model.get_config()["cutoff"]) is float


def test_hints_ignore_case():
    for name, hint in (("ENERGIE", "did you mean 'energy'?"), ("h", "did you mean 'H'?"), ("xyz", "known: energy, H")):
        assert str(unknown_name("target", name, ["energy", "H"])) == f"unknown target '{name}'; {hint}"
