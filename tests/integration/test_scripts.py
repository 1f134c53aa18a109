"""The documented commands, as real processes."""

import csv
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import ase.io
import numpy as np
import pytest
import yaml
from ase import Atoms, units
from ase.build import molecule

import dimenet_tf
from dimenet_tf.commands.recipes import recipe_files
from dimenet_tf.data import ethanol_xtb, sample
from helpers.paths import ROOT

TINY = "model.emb_size=8 model.num_blocks=1 training.batch_size=8 training.warmup_steps=2".split()


def run(*arguments: str, cwd: Path, code: int = 0) -> str:
    """Run a script of the repository and return its output."""
    command = [sys.executable, str(ROOT / arguments[0]), *arguments[1:]]
    result = subprocess.run(command, cwd=cwd, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert result.returncode == code, result.stdout
    return result.stdout


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory) -> tuple[Path, str]:
    """A short training run: its folder and what it printed."""
    cwd = tmp_path_factory.mktemp("training")
    config = str(ROOT / "configs/dimenet_pp.yaml")
    steps = ["training.num_steps=6", "training.evaluation_interval=3"]
    printed = run("run_train.py", "with", config, *TINY, *steps, "data.target=mu", cwd=cwd)
    return cwd / "runs/1", printed


def test_training_prints_its_progress_and_a_test_table(finished_run):
    _, printed = finished_run
    assert "100%" in printed and "step/s" in printed and "validation MAE mu" in printed
    assert "200 test molecules" in printed and "MAE of a per-element fit" in printed
    assert "Traceback" not in printed and "WARNING" not in printed


def test_numbers_that_yaml_takes_for_texts(tmp_path):
    """1e-4 without a dot is a string in YAML, and Sacred would hand it on as one."""
    training = "{learning_rate: 1e-3, weight_decay: 1e-4, num_steps: 1, evaluation_interval: 1}"
    (tmp_path / "own.yaml").write_text(f"model: {{name: dimenet_pp}}\ntraining: {training}\n")
    run("run_train.py", "with", "own.yaml", *TINY, "data.num_train=20", "data.num_valid=5", cwd=tmp_path)
    config = yaml.safe_load((tmp_path / "runs/1/config.yaml").read_text())
    assert (config["training"]["learning_rate"], config["training"]["weight_decay"]) == (1e-3, 1e-4)


def test_the_run_folder_explains_itself(finished_run):
    folder, _ = finished_run
    config = yaml.safe_load((folder / "config.yaml").read_text())
    assert config["model"]["name"] == "dimenet_pp" and config["model"]["emb_size"] == 8
    assert config["data"]["target"] == "mu" and config["training"]["num_steps"] == 6
    versions = json.loads((folder / "versions.json").read_text())
    assert versions["tensorflow"].startswith("2.15")
    data = json.loads((folder / "data.json").read_text())
    assert data["sha256"] == sample().checksum() and data["split"] == {"train": 1600, "valid": 200, "test": 200}
    with (folder / "metrics.csv").open() as file:
        assert [int(float(row["step"])) for row in csv.DictReader(file)] == [3, 6]
    assert json.loads((folder / "test.json").read_text())["targets"]["mu"]["unit"] == "D"
    for path in ("best/predictor.json", "best/weights.h5", "plots/test_mu.png", "plots/learning_curve.png"):
        assert (folder / path).stat().st_size > 0
    assert list((folder / "tensorboard").glob("events*"))
    metrics = json.loads((folder / "sacred/1/metrics.json").read_text())
    assert metrics["mae_mu"]["steps"] == [3, 6]


def test_evaluation_repeats_the_test_table(finished_run):
    folder, printed = finished_run
    before = json.loads((folder / "test.json").read_text())
    del before["targets"]["mu"]["unit"]
    again = run("run_eval.py", "with", f"run={folder}", cwd=folder)
    row = re.search(r"^mu +D .*$", printed, re.MULTILINE).group()
    assert row in again
    after = json.loads((folder / "test.json").read_text())
    assert after["targets"]["mu"].pop("unit") == "D"
    assert after["targets"]["mu"] == pytest.approx(before["targets"]["mu"], rel=1e-6)
    assert "200 valid molecules" in run("run_eval.py", "with", f"run={folder}", "part=valid", cwd=folder)
    assert (folder / "valid.json").exists() and (folder / "plots/valid_mu.png").exists()


def test_prediction_from_the_run(finished_run):
    folder, _ = finished_run
    data = sample().select([5, 8])
    Z, R = np.zeros((2, 30), int), np.zeros((2, 30, 3))
    ends = np.cumsum(data.N)
    for i, (start, end) in enumerate(zip(ends - data.N, ends)):
        Z[i, : end - start], R[i, : end - start] = data.Z[start:end], data.R[start:end]
    result = dimenet_tf.load(folder).predict({"Z": Z, "R": R})
    assert list(result) == ["mu", "in_domain"] and np.isfinite(result["mu"]).all()


def test_going_on_with_a_finished_run(finished_run):
    folder, _ = finished_run
    printed = run("run_train.py", "with", f"run={folder}", "training.num_steps=8", cwd=folder)
    assert "resuming from step 6" in printed and "8/8" in printed
    assert "length: 8 steps instead of 6; from step 6 on the learning rate follows" in printed
    printed = run("run_train.py", "with", f"run={folder}", "training.epochs=0.05", cwd=folder)
    assert "length: 10 steps = 0.05 epochs (auto: decay over 10; set: warm-up 2, validation every 3)" in printed
    other = run("run_train.py", "with", f"run={folder}", "data.target=gap", cwd=folder, code=2)
    assert other.startswith("error: ") and "data.target" in other
    double = run("run_train.py", "with", f"run={folder}", "precision=float64", cwd=folder, code=2)
    assert double.startswith("error: precision of ")


def test_evaluation_refuses_other_data(finished_run, tmp_path):
    folder, _ = finished_run
    shutil.copytree(folder, tmp_path / "run")
    config = yaml.safe_load((tmp_path / "run/config.yaml").read_text())
    data = sample().select(np.arange(1990))
    np.savez(tmp_path / "fewer.npz", N=data.N, Z=data.Z, R=data.R, **data.targets)
    config["data"]["path"] = str(tmp_path / "fewer.npz")
    (tmp_path / "run/config.yaml").write_text(yaml.safe_dump(config))
    printed = run("run_eval.py", "with", f"run={tmp_path / 'run'}", cwd=tmp_path, code=2)
    assert printed.startswith("error: the data are not those")


def test_print_config(tmp_path):
    config = str(ROOT / "configs/dimenet.yaml")
    printed = run("run_train.py", "print_config", "with", config, "training.num_steps=77", cwd=tmp_path)
    assert "num_steps = 77" in printed and "num_bilinear = 8" in printed and "ema_decay" in printed
    assert not (tmp_path / "runs").exists()


MISTAKES = [
    ("run_train.py with model.emb_sise=3", "unknown key 'model.emb_sise'; did you mean 'model.emb_size'?"),
    ("run_train.py with trainig.num_steps=3", "unknown key 'trainig'; did you mean 'training'?"),
    ("run_train.py with training.num_steps=1 data.target=homoo", "unknown target 'homoo'; did you mean 'homo'?"),
    ("run_train.py with training.num_steps=1 data.heads.mu=dipole", "unknown target in data.heads 'mu'"),
    (
        "run_train.py with training.epochs=1 training.weights.forces=2",
        "the weight of the forces is training.rho_force",
    ),
    ("run_train.py with training.num_steps=1 data.path=no.npz", "no such file: no.npz"),
    (
        "run_train.py with nonexist.yaml",
        "there is no recipe and no file 'nonexist.yaml'; recipes: dimenet, dimenet_pp, ",
    ),
    ("run_train.py with configs/dimenett.yaml", "did you mean 'dimenet'?"),
    (
        "run_train.py with training.epochs=1 model.conventions=offical",
        "model.conventions must be one of official, corrected; got 'offical'. Did you mean 'official'?",
    ),
    ("run_train.py with training.num_steps=1 training.init_from=nowhere", "no such run or model: nowhere"),
    ("run_train.py with run=runs/33", "no such run: runs/33"),
    ("run_train.py with run=3", "run = 3 must be a string"),
    ("run_train.py with configs/broken.yaml", "configs/broken.yaml is not valid YAML"),
    (
        "run_train.py with configs/python.yaml",
        "configs/python.yaml is not valid YAML: could not determine",
    ),
    ("run_train.py with configs/code.pickle", "configs/code.pickle is no configuration: these are YAML files"),
    ("run_train.py with configs/code.json", "configs/code.json is no configuration: these are YAML files"),
    ("run_eval.py with run=3", "3 is no run folder; write runs/3"),
    ("run_eval.py with runs=runs/1,runs/2 part=valid", "give neither run nor part"),
    ("run_eval.py with run=nowhere", "nowhere is no run folder"),
    ("run_eval.py with runn=runs/1", "unknown key 'runn'; did you mean 'run'?"),
    ("run_eval.py with run=runs/1 relax=oc20 part=valid", "relax takes one run, and neither runs nor part"),
    ("run_eval.py with run=runs/1 relax=oc20 fmax=small", "fmax = small must be a number"),
    ("run_eval.py with run=runs/1 relax=oc20", "no such run or model: runs/1"),
    ("run_eval.py", "name a run folder"),
]


@pytest.mark.parametrize("script", ["run_train.py", "run_eval.py"])
def test_scripts_name_themselves(tmp_path, script):
    for arguments in (["--help"], ["--no-such-option"]):
        printed = run(script, *arguments, cwd=tmp_path, code=int(arguments != ["--help"]))
        assert f"\n  {script} [(with UPDATE...)] [options]\n" in printed and "dummy" not in printed
    assert f"\npython {script} with " in run(script, "--help", cwd=tmp_path)


def test_a_script_without_configuration_lists_recipes(tmp_path):
    first, *lines = run("run_train.py", cwd=tmp_path, code=2).splitlines()
    assert first.endswith("for instance: python run_train.py with configs/dimenet.yaml data.target=mu")
    assert [line.split()[0] for line in lines] == list(recipe_files())
    assert "num_steps = 3000000" in run("run_train.py", "print_config", cwd=tmp_path)
    assert not (tmp_path / "runs").exists()


@pytest.mark.skipif(importlib.util.find_spec("hashfs") is not None, reason="TinyDB's observer is installed")
@pytest.mark.parametrize("option", [("-t", "db"), ("--tiny_db=db",)])
def test_an_option_without_its_package(tmp_path, option):
    printed = run("run_train.py", *option, "with", "dimenet", cwd=tmp_path, code=2)
    packages = "pip install tinydb tinydb-serialization hashfs"
    assert printed == f"error: -t, --tiny_db needs a package that is not installed: {packages}\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command, message", MISTAKES)
def test_a_mistake_is_one_line(tmp_path, command, message):
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs/dimenet.yaml").write_text("model: {name: dimenet}\n")
    (tmp_path / "configs/broken.yaml").write_text("model: {name: [\n")
    # what would run code if it were read carelessly; the second is valid YAML too
    (tmp_path / "configs/python.yaml").write_text("seed: !!python/object/apply:os.system ['touch ran']\n")
    (tmp_path / "configs/code.pickle").write_text("cos\nsystem\n(S'touch ran'\ntR.")
    call = {"py/reduce": [{"py/function": "os.system"}, {"py/tuple": ["touch ran"]}]}
    (tmp_path / "configs/code.json").write_text(json.dumps({"seed": call}))
    printed = run(*command.split(), cwd=tmp_path, code=2).splitlines()
    assert len(printed) == 1 and printed[0].startswith("error: ") and message in printed[0]
    assert not (tmp_path / "ran").exists()


def test_interrupt_leaves_a_checkpoint_and_says_how_to_go_on(tmp_path):
    command = [sys.executable, str(ROOT / "run_train.py"), "with", *TINY, "training.num_steps=100000"]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(command, cwd=tmp_path, stdout=log, stderr=subprocess.STDOUT, env=environment)
        deadline = time.monotonic() + 120
        while not re.search(r"\b\d+/100000 .*loss", (tmp_path / "log").read_text()) and time.monotonic() < deadline:
            time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        code = process.wait(timeout=60)
    printed = (tmp_path / "log").read_text()
    assert code == 130 and "Traceback" not in printed, printed
    step = int(re.search(r"stopped at step (\d+); continue with: dimenet-tf train run=runs/1", printed).group(1))
    assert step > 0
    again = run("run_train.py", "with", "run=runs/1", f"training.num_steps={step + 2}", cwd=tmp_path)
    assert f"resuming from step {step}" in again and "test molecules" in again


def test_dipoles_beside_forces(tmp_path):
    data = "data.target=energy,forces,dipole data.num_train=1900 data.num_valid=50 training.weights.dipole=0.1".split()
    steps = ["training.num_steps=4", "training.evaluation_interval=2"]
    config = str(ROOT / "configs/dimenet_pp_forces.yaml")
    printed = run("run_train.py", "with", config, *TINY, *data, *steps, cwd=tmp_path)
    assert re.search(r"^dipole +e\*Ang +[\d.]+", printed, re.MULTILINE) and "Traceback" not in printed, printed
    assert "validation MAE energy" in printed
    assert (tmp_path / "runs/1/plots/test_dipole.png").exists()
    predicted = dimenet_tf.load(tmp_path / "runs/1").predict([molecule("CH3CH2OH")])
    assert predicted["dipole"].shape == (1, 3) and predicted["forces"].shape == (1, 9, 3)


def test_a_force_field_of_own_data(tmp_path):
    """Extended XYZ with names of another program, in kcal/mol -> training, evaluation, certificate, calculator."""
    data = ethanol_xtb().select(range(0, 2000, 40))
    kcal = units.kcal / units.mol
    frames = []
    for i in range(len(data)):
        one = data.select([i])
        atoms = Atoms(one.Z, one.R, info={"REF_energy": one.target("energy")[0] / kcal})
        atoms.arrays["REF_forces"] = one.target("forces") / kcal
        frames.append(atoms)
    ase.io.write(tmp_path / "my.extxyz", frames)
    own = "data.path=my.extxyz data.keys.energy=REF_energy data.keys.forces=REF_forces".split()
    own += "data.units.energy=kcal/mol data.units.forces=kcal/mol/Ang training.num_steps=4".split()
    sizes = "model.emb_size=8 model.num_blocks=1 training.evaluation_interval=2".split()
    config = str(ROOT / "configs/forces.yaml")
    printed = run("run_train.py", "with", config, *own, *sizes, cwd=tmp_path)
    assert re.search(r"MAE of forces: [\d.]+ eV/Ang = [\d.]+ kcal/mol/Ang = [\d.]+ meV/Ang", printed), printed
    assert "validation MAE energy" in printed and "Traceback" not in printed
    again = run("run_eval.py", "with", "run=runs/1", cwd=tmp_path)
    assert re.search(r"^forces +eV/Ang.*$", printed, re.MULTILINE).group() in again
    labels = json.loads((tmp_path / "runs/1/data.json").read_text())["targets"]["energy"]
    assert labels["unit"] == "eV" and 0.01 < labels["sigma"] < 1
    certify = [sys.executable, "-m", "dimenet_tf", "certify", "runs/1", "--picoseconds", "0.02"]
    result = subprocess.run(certify, cwd=tmp_path, text=True, capture_output=True)
    assert "held-out forces, MAE (5 frames)" in result.stdout and (tmp_path / "runs/1/certificate.json").exists()
    assert "Traceback" not in result.stderr and "not a full certificate" in result.stdout + result.stderr
    loaded = dimenet_tf.load(tmp_path / "runs/1")
    assert loaded.predict([frames[0]])["forces"].shape == (1, 9, 3)
    refused = run("run_train.py", "with", config, cwd=tmp_path, code=2)
    assert refused.startswith("error: missing data: set data.path")


def test_the_md_example(tmp_path):
    command = [sys.executable, str(ROOT / "examples/md.py"), "--picoseconds", "0.05"]
    result = subprocess.run(command, cwd=tmp_path, text=True, capture_output=True)
    assert result.returncode == 0, result.stderr
    assert "relaxed: " in result.stdout and "nve: mean" in result.stdout
    for name in ("relaxed.xyz", "nvt.traj", "nve.traj", "md.csv", "md.png"):
        assert (tmp_path / "md" / name).stat().st_size > 0
    assert len(ase.io.read(tmp_path / "md/nve.traj", ":")) == 11
