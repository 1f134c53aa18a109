"""The command `dimenet-tf`: help, recipes, configurations, files of users. In this process unless imports matter."""

import inspect
import json
import os
import subprocess
import sys
from pathlib import Path

import ase.io
import numpy as np
import pytest
import yaml
from ase import Atoms
from ase.build import molecule
from click.shell_completion import ShellComplete
from click.testing import CliRunner

import dimenet_tf
from dimenet_tf.commands import program
from dimenet_tf.commands.configuration import complete, given, normalize, parse_value
from dimenet_tf.commands.console import DOMAIN
from dimenet_tf.commands.data import NAMED
from dimenet_tf.commands.recipes import find_recipe, recipe_files
from dimenet_tf.config import build, schema
from dimenet_tf.data import ethanol_xtb, sample
from dimenet_tf.errors import UserError
from dimenet_tf.md import ipi_spectra, spectra
from dimenet_tf.md.certify import certify_model
from dimenet_tf.md.trajectories import Settings
from dimenet_tf.plots.pictures import KINDS
from dimenet_tf.predictor.watch import ACTIONS
from dimenet_tf.training import session
from helpers.paths import FILES, ROOT

CASES = FILES / "cases"
TINY = "model.emb_size=8 model.num_blocks=1 training.batch_size=4 training.warmup_steps=2".split()


def run(*arguments, code: int = 0) -> str:
    """Run a command and return its output."""
    result = CliRunner().invoke(program, [*map(str, arguments)], prog_name="dimenet-tf")
    assert result.exit_code == code, (result.output, result.exception)
    return result.output


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """An empty current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


# help


@pytest.mark.parametrize("name", [None, *program.commands])
def test_help_fits_a_screen_and_has_an_example(name, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    shown = run(*([name] if name else []), "--help")
    assert "Example:" in shown and f"dimenet-tf {name or 'train'}" in shown
    lines = shown.splitlines()
    assert len(lines) <= 24 and max(map(len, lines)) <= 80, f"{len(lines)} lines"
    if name is None:
        assert (
            all(f"\n  {command} " in shown for command in program.commands) and "..." not in shown.split("[ARGS]...")[1]
        )


def test_help_and_completion_import_nothing_heavy():
    code = (
        "import sys, dimenet_tf.commands as c\n"
        "for arguments in (['--help'], ['train', '--help'], ['recipes'], ['models']):\n"
        "    try: c.main(arguments)\n"
        "    except SystemExit: pass\n"
        "print([m for m in ('tensorflow', 'matplotlib', 'sacred', 'ase') if m in sys.modules])"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).splitlines()[-1] == "[]"


def test_choices_and_defaults_are_those_of_what_is_called():
    options = {name: {o.name: o for o in command.params} for name, command in program.commands.items()}
    assert tuple(DOMAIN.choices) == ACTIONS and tuple(options["plot"]["kind"].type.choices) == KINDS
    assert set(NAMED) <= set(dimenet_tf.datasets())
    for name, value in Settings()._asdict().items():
        assert options["spectra"][name].default == value
    for command, function in (
        ("certify", certify_model),
        ("spectra", spectra.molecular_spectra),
        ("ipi-spectra", ipi_spectra.simulated_spectra),
    ):
        for name, parameter in inspect.signature(function).parameters.items():
            if isinstance(parameter.default, float):
                assert options[command][name].default == parameter.default


# shell completion


def completed(*arguments: str, incomplete: str = "") -> list[str]:
    found = ShellComplete(program, {}, "dimenet-tf", "_DIMENET_TF_COMPLETE").get_completions(
        list(arguments), incomplete
    )
    return [item.value for item in found if item.type == "plain"]


def test_completion(folder):
    assert completed(incomplete="pr") == ["predict"] and set(completed()) == set(program.commands)
    assert completed("train", incomplete="paper/coll") == ["paper/coll_gemnet"]
    (folder / "runs/7").mkdir(parents=True)
    (folder / "runs/7/config.yaml").touch()
    assert completed("train", incomplete="run=") == ["run=runs/7"]
    assert set(completed("info")) == set(dimenet_tf.pretrained_models())
    assert completed("predict", incomplete="--on") == ["--on-bad"]
    assert completed("plot", incomplete="b") == ["basis"]


def test_completion_by_the_shell():
    words = {"_DIMENET_TF_COMPLETE": "bash_complete", "COMP_WORDS": "dimenet-tf train dimenet_p", "COMP_CWORD": "2"}
    command = [sys.executable, "-m", "dimenet_tf"]
    printed = subprocess.check_output(command, text=True, env={**os.environ, **words})
    assert printed.split() == ["plain,dimenet_pp", "plain,dimenet_pp_forces", "file,dimenet_p"]


# recipes and configurations


def test_every_recipe_has_a_name_and_a_line():
    files = {path.relative_to(ROOT / "configs") for path in (ROOT / "configs").rglob("*.yaml")}
    assert {Path(f"{name}.yaml") for name in recipe_files()} == files
    lines = dict(line.split(maxsplit=1) for line in run("recipes").splitlines())
    assert list(lines) == list(recipe_files())
    assert lines["paper/qm9_dimenet_pp"] == "DimeNet++ on QM9, one target."


@pytest.mark.parametrize(
    "name, message",
    [
        ("dimenett", "there is no recipe and no file 'dimenett'; did you mean 'dimenet'?"),
        ("configs/paper/qm9_painn_.yml", "did you mean 'paper/qm9_painn'?"),
        ("nonexist.yaml", "there is no recipe and no file 'nonexist.yaml'; recipes: dimenet, dimenet_pp, "),
        (".pre-commit-config.yml", "recipes: dimenet, "),
    ],
)
def test_unknown_recipes(folder, name, message):
    (folder / ".pre-commit-config.yaml").write_text("repos: []\n")
    (folder / "nonexistent.yaml").write_text("model: {}\n")
    printed = run("train", name, code=2)
    assert printed.startswith("error: ") and message in printed and len(printed.splitlines()) == 1
    assert "nonexistent" not in printed and "did you mean '.pre" not in printed


def test_recipes_by_name_and_path(folder):
    assert find_recipe("dimenet") == ROOT / "configs/dimenet.yaml"
    (folder / "own.yaml").write_text("model: {name: painn}\n")
    (folder / "dimenet").mkdir()  # the name counts
    assert given(["own.yaml"]) == {"model": {"name": "painn"}}
    assert given(["dimenet", "own.yaml"])["model"]["name"] == "painn"
    (folder / "list.yaml").write_text("- 1\n")
    with pytest.raises(UserError, match="list.yaml must have the sections model, data and training"):
        given(["list.yaml"])


def test_values():
    assert parse_value("(1, 2)") == (1, 2) and parse_value("on") == "on" and parse_value("") == ""
    assert normalize(["data.path='a b'", "data.target=[U0, H]"]) == ["data.path='a b'", "data.target=['U0', 'H']"]
    assert given(["data.path=None", "training.budget={edges: 100}"]) == {
        "data": {"path": None},
        "training": {"budget": {"edges": 100}},
    }
    with pytest.raises(UserError, match=r"'\[U0' is no list or mapping"):
        given(["data.target=[U0"])
    with pytest.raises(UserError, match="data.path=x: data has been given a value"):
        given(["data=3", "data.path=x"])


def test_printed_configuration_is_what_is_trained(folder):
    arguments = ["dimenet_pp", "data.target=U0,H", "training.epochs=2", "training.learning_rate=2e-4"]
    printed = yaml.safe_load(run("train", *arguments, "--print-config"))
    assert printed == complete(given(arguments))
    assert printed["training"]["num_steps"] is None and printed["data"]["target"] == "U0,H"
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("arguments", [(), ("data.target=mu",), ("model.name=painn", "training.batch_size=8")])
def test_defaults_alone_do_not_start_a_run_of_weeks(folder, arguments):
    first, *lines = run("train", *arguments, code=2).splitlines()
    assert first == "error: name a recipe or your own file, for instance: dimenet-tf train dimenet data.target=mu"
    assert [line.split()[0] for line in lines] == list(recipe_files())
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["trian"], "unknown command 'trian'; did you mean 'train'?"),
        (["train", "dimenet", "model.emb_sise=3"], "unknown key 'model.emb_sise'; did you mean 'model.emb_size'?"),
        (["train", "run=runs/33"], "no such run: runs/33; a new run of that name needs a configuration"),
        (["train", "dimenet", "--fit-scale-factors"], "model.name: dimenet has no scaling factors"),
        (["train", "dimenet", "training.strategy=multi_worker"], "needs the name of the run that all share"),
        (["evaluate", "nowhere"], "nowhere is no run folder"),
        (["evaluate", "runs/1", "runs/2", "--part", "valid"], "leave out --part valid"),
        (["certify", "x", "--unit", "energy"], "--unit takes NAME=VALUE, as --unit energy=...; got 'energy'"),
        (["data", "nothing.xyz"], "no such file: nothing.xyz; data sets by name: sample, ethanol_xtb, water_xtb, qm9"),
        (["new", "nothing.xyz"], "no such file: nothing.xyz"),
        (["plot", "basis", "nowhere"], "no such run or model: nowhere"),
    ],
)
def test_mistakes(folder, arguments, message):
    printed = run(*arguments, code=2)
    assert printed.startswith("error: ") and message in printed and len(printed.splitlines()) == 1


def test_ctrl_c_ends_with_its_code():
    @program.command("wait")
    def wait():
        raise KeyboardInterrupt

    try:
        assert run("wait", code=130).strip() == ""
    finally:
        del program.commands["wait"]


# training without Sacred is training with it


def small(folder: Path) -> list[str]:
    data = sample()[:60]
    np.savez(folder / "small.npz", N=data.N, Z=data.Z, R=data.R, U0=data.targets["U0"], mu=data.targets["mu"])
    return ["data.path=small.npz", "data.num_train=40", "data.num_valid=10", *TINY, "training.evaluation_interval=5"]


def test_training_equals_that_of_the_script(folder):
    settings = ["dimenet", *small(folder), "training.num_steps=10"]
    script = [sys.executable, str(ROOT / "run_train.py"), "with", *settings, "run=runs/script"]
    printed = subprocess.check_output(script, text=True, stderr=subprocess.STDOUT)
    assert "10 test molecules" in printed and "best model, plots and metrics: runs/script" in printed
    printed = run("train", *settings, "run=runs/command")
    assert "10 test molecules" in printed and "best model, plots and metrics: runs/command" in printed
    one, other = (Path("runs", name) for name in ("script", "command"))
    for name in ("metrics.csv", "test.json"):
        values = [path.joinpath(name).read_text() for path in (one, other)]
        if name == "metrics.csv":
            rows = [np.genfromtxt(text.splitlines(), delimiter=",", names=True).tolist() for text in values]
            np.testing.assert_allclose(rows[0], rows[1], rtol=1e-5)
            assert values[0].splitlines()[0] == values[1].splitlines()[0] and len(values[0].splitlines()) == 3
        else:
            errors = [json.loads(text)["targets"]["U0"] for text in values]
            assert errors[0].pop("unit") == errors[1].pop("unit") and errors[0] == pytest.approx(errors[1], rel=1e-4)
    configs = [yaml.safe_load((path / "config.yaml").read_text()) for path in (one, other)]
    assert {**configs[0], "run": None} == {**configs[1], "run": None}
    assert (one / "sacred").exists() and not (other / "sacred").exists()
    table = run("evaluate", other)
    assert "10 test molecules" in table and "test.json and plots: runs/command" in table
    assert "10 valid molecules" in run("evaluate", other, "--part", "valid")
    again = run("train", "run=runs/command", "training.num_steps=12")
    assert "resuming from step 10" in again and "12 steps instead of 10" in again


def test_a_training_resolves_and_builds_once(folder, monkeypatch):
    calls = []

    def counted(function):
        def call(*args, **kwargs):
            calls.append(function.__name__)
            return function(*args, **kwargs)

        return call

    for module, function in ((schema, schema.resolve), (session, schema.resolve), (session, build.build_predictor)):
        monkeypatch.setattr(module, function.__name__, counted(function))
    run("train", "dimenet", *small(folder), "training.num_steps=5", "run=runs/1")
    assert calls == ["resolve", "build_predictor"]


# what is in a file


def test_the_embedded_sample():
    printed = run("data", "sample")
    assert printed.splitlines()[0] == "embedded sample: 2000 molecules of 2 to 29 atoms, 35824 in all"
    assert "elements: H 20746, C 10993, N 2011, O 1751, F 323" in printed and "491" in printed
    assert "charge and spin: 0 and 1 (singlet) throughout; periodic: no" in printed
    values = sample().targets["U0"]
    row = next(line.split() for line in printed.splitlines() if line.startswith("U0 "))
    assert row[1:3] == ["eV", "2000"]
    np.testing.assert_allclose(
        [*map(float, row[3:])], [values.min(), values.max(), values.mean(), values.std()], rtol=1e-5
    )
    assert "not usable: none; no outliers" in printed
    assert printed.splitlines()[-1] == "  dimenet-tf train dimenet_pp data.name=sample data.target=U0"


@pytest.mark.parametrize(
    "case, messages",
    [
        ("outlier", ["1 of 40: 1 with an outlier of 'energy' (molecule 7, id 7, 5785.034 eV", "data.on_bad=drop"]),
        (
            "charges",
            ["20 with 0 and 1, 20 with 1 and 2", "20 with a charge or spin that the models do not take (first: "],
        ),
        (
            "isolated_atoms",
            ["43 molecules of 1 to 9 atoms", "isolated atoms: 3, whose energies can be", "none; no outl"],
        ),
        ("some_without_forces", ["\nenergy  eV             40 ", "\nforces  eV/Ang         20 ", "none; no outliers"]),
        ("column_force", ["forces: not there under this name; meant may be force\n", "data.keys.forces=force"]),
        ("weights", ["--key weight=config_weight multiplies each molecule's loss by it"]),
        ("fortran_exponent", ["energy,forces", "smallest distance: 0.9"]),
    ],
)
def test_files_with_peculiarities(case, messages):
    printed = run("data", CASES / f"{case}.extxyz")
    for message in messages:
        assert message in printed, printed


def test_a_wrong_unit_is_a_problem_and_no_end():
    printed = run("data", CASES / "ethanol_bohr.xyz")
    assert "PROBLEM: " in printed and "set --unit R=a0, or --unit R=Ang" in printed and "to train" not in printed
    assert "PROBLEM" not in run("data", CASES / "ethanol_bohr.xyz", "--unit", "R=a0")


def test_faults_of_molecules(folder):
    frames = ethanol_xtb()[:20].to_atoms()
    for atoms in frames:
        atoms.info = {}
    frames[3].positions[1] = frames[3].positions[0]
    frames[5] = frames[4].copy()
    ase.io.write("my.extxyz", frames)
    printed = run("data", "my.extxyz")
    assert "1 with two atoms closer than 0.3 Ang (molecule 3, id 3, 0 Ang)" in printed
    assert "repeated: 1 molecule with the atoms of an earlier one (first: 5, as 4)" in printed
    crystals = [
        Atoms("Ar", cell=[5, 5, 5], pbc=True),
        Atoms("Ar", cell=[5, 5, 0], pbc=True),
        Atoms("Ar2", [[0] * 3] * 2),
    ]
    crystals[2].positions[1, 0] = 3.8
    ase.io.write("crystal.extxyz", crystals)
    printed = run("data", "crystal.extxyz")
    assert "periodic: 2 of 3" in printed and "1 with a cell that cannot be used (molecule 1, id 1" in printed
    assert "smallest distance: 3.800 Ang" in printed


# a configuration for a file


def test_a_new_configuration_trains_unchanged(folder):
    """Frames under another program's names, in its units, one of them broken."""
    frames = []
    for atoms in ethanol_xtb()[:40].to_atoms():
        own = Atoms(atoms.numbers, atoms.positions, info={"REF_energy": atoms.get_potential_energy() * 23.060548})
        own.arrays["REF_forces"] = atoms.get_forces() * 23.060548
        frames.append(own)
    frames[3].positions[1] = frames[3].positions[0]
    ase.io.write("my.extxyz", frames)
    units = ("--unit", "energy=kcal/mol", "--unit", "forces=kcal/mol/Ang")
    printed = run("new", "my.extxyz", *units)
    assert "taken for energy: 'REF_energy'" in printed and "taken for forces: 'REF_forces'" in printed
    text = Path("my.yaml").read_text()
    config = yaml.safe_load(text)
    assert config["data"] == {
        "path": "my.extxyz",
        "target": ["energy", "forces"],
        "keys": {"energy": "REF_energy", "forces": "REF_forces"},
        "units": {"energy": "kcal/mol", "forces": "kcal/mol/Ang"},
        "num_train": 31,
        "num_valid": 3,
        "on_bad": "drop",
    }
    assert "  # leaves out 1 of 40; `dimenet-tf data my.extxyz` tells why" in text
    assert complete(given(["my.yaml"]))["training"]["hours"] == 1.0
    printed = run("train", "my.yaml", "training.num_steps=2", *TINY)
    assert "dropped 1 of 40 molecules" in printed and "MAE of forces" in printed
    sigma = json.loads(Path("runs/1/data.json").read_text())["targets"]["energy"]["sigma"]
    assert sigma == pytest.approx(ethanol_xtb()[:40].target("energy").std(), rel=0.1)
    assert run("new", "my.extxyz", code=2) == "error: my.yaml exists already: name another by -o\n"
    assert Path("my.yaml").read_text() == text
    suggested = run("data", "my.extxyz", *units).splitlines()[-2:]
    assert (
        suggested[0].split()[:3] == ["dimenet-tf", "new", "my.extxyz"] and "data.keys.forces=REF_forces" in suggested[1]
    )
    assert run(*suggested[0].split()[1:], "-o", "other.yaml").startswith("other.yaml: ")
    assert yaml.safe_load(Path("other.yaml").read_text()) == config


@pytest.mark.parametrize(
    "labels, name, target, extensive",
    [
        (["mu", "gap"], "painn", "mu", None),
        (["gap", "homo"], "dimenet_pp", "homo", False),
        (["Cv", "U0"], "dimenet_pp", "U0", True),
    ],
)
def test_a_new_configuration_for_properties(folder, labels, name, target, extensive):
    data = sample()[:30]
    np.savez("my.npz", N=data.N, Z=data.Z, R=data.R, **{label: data.targets[label] for label in labels})
    run("new", "my.npz", "-o", "own.yaml")
    config = yaml.safe_load(Path("own.yaml").read_text())
    assert (config["model"]["name"], config["data"]["target"]) == (name, target)
    assert config["model"].get("extensive") is extensive and config["training"]["batch_size"] == 24
    resolved = complete(given(["own.yaml"]))
    assert resolved["data"]["num_train"] == 24 and resolved["data"]["on_bad"] == "error"


def test_molecules_without_the_chosen_target_are_left_out(folder):
    data = sample()[:30]
    U0 = data.targets["U0"].copy()
    U0[[2, 5]] = np.nan
    np.savez("my.npz", N=data.N, Z=data.Z, R=data.R, U0=U0, gap=data.targets["gap"])
    assert "not usable: none" in run("data", "my.npz")
    run("new", "my.npz")
    config = yaml.safe_load(Path("my.yaml").read_text())["data"]
    assert (config["target"], config["on_bad"], config["num_train"]) == ("U0", "drop", 22)


def test_files_without_labels_or_molecules_enough(folder):
    ase.io.write("bare.xyz", [molecule("CH4")] * 3)
    shown = run("data", "bare.xyz")
    assert "labels: none" in shown and shown.endswith("to train on it:\n  bare.xyz has no labels to train on\n")
    assert "bare.xyz has no labels to train on" in run("new", "bare.xyz", code=2)
    ase.io.write("one.extxyz", [Atoms("CO", [[0, 0, 0], [0, 0, 1.1]], info={"U0": 1.0})])
    assert "one.extxyz: 1 of its molecules can be used, at least 3 are needed" in run("new", "one.extxyz", code=2)
    assert not Path("bare.yaml").exists() and not Path("one.yaml").exists()
