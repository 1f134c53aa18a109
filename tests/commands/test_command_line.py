"""The command dimenet-tf as real processes; test_commands.py has the rest."""

import json
import subprocess
import sys

import ase.io
import numpy as np
import pytest
import tensorflow as tf
from ase.build import molecule

import dimenet_tf
from helpers.pretrained import FORCES

U0 = "dimenet_pp-sample-U0"


def run(*arguments, code=0) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "dimenet_tf", *map(str, arguments)]
    result = subprocess.run(command, text=True, capture_output=True)
    assert result.returncode == code, result.stderr
    return result


@pytest.fixture
def frames(tmp_path):
    """Ethanol and dimethyl ether in motion, with words and numbers of their own."""
    frames = [molecule(name) for name in ("CH3CH2OH", "CH3OCH3", "CH3CH2OH")]
    for i, atoms in enumerate(frames):
        atoms.rattle(0.03, seed=i)
        atoms.info.update(name=f"frame{i}", weight=0.5 * i)
    ase.io.write(tmp_path / "in.extxyz", frames)
    return ase.io.read(tmp_path / "in.extxyz", ":")


@pytest.mark.parametrize("model", [FORCES, U0])
def test_predict(tmp_path, frames, model):
    result = run("predict", model, tmp_path / "in.extxyz", tmp_path / "out.extxyz", "--batch-size", 2)
    assert "3 molecules" in result.stdout and "molecule/s" in result.stderr
    expected = dimenet_tf.load(model).predict(frames)
    written = ase.io.read(tmp_path / "out.extxyz", ":")
    for i, atoms in enumerate(written):
        assert atoms.info["name"] == f"frame{i}" and atoms.info["weight"] == 0.5 * i
        if model == FORCES:
            assert atoms.get_potential_energy() == pytest.approx(expected["energy"][i], rel=1e-9)
            np.testing.assert_allclose(atoms.get_forces(), expected["forces"][i, : len(atoms)], atol=1e-5)
        else:
            assert atoms.info["U0"] == pytest.approx(expected["U0"][i], rel=1e-6)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.extxyz", "out.extxyz"]


def test_bad_molecules_are_named_and_leave_no_output(tmp_path, frames):
    frames.insert(2, molecule("NH3"))
    ase.io.write(tmp_path / "in.extxyz", frames)
    result = run("predict", FORCES, tmp_path / "in.extxyz", tmp_path / "out.extxyz", code=2)
    line = result.stderr.splitlines()[-1]
    assert line.startswith("error: ") and "molecule 2 contains N" in line
    assert not (tmp_path / "out.extxyz").exists()


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("predict", FORCES, "nothing.xyz", "out.xyz"), "no such file: nothing.xyz"),
        (("predict", "dimenet_pp-ethanol-forces", "a.xyz", "b.xyz"), "did you mean 'dimenet_pp-ethanol_xtb-forces'"),
        (("predict", FORCES, __file__, "out.csv"), "written as extended XYZ"),
        (("predict", FORCES, __file__, "out.xyz"), "could not be read by ASE"),
        (("predict", FORCES, "a.xyz", "b.xyz", "--shard", "2"), "--shard 2 must be k/n"),
        (("export", FORCES, __file__), "exists already"),
    ],
)
def test_mistakes_are_one_line(tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    lines = run(*arguments, code=2).stderr.splitlines()
    assert lines[-1].startswith("error: ") and message in lines[-1]
    assert not any("Traceback" in line for line in lines)


def test_export_and_info(tmp_path, frames):
    printed = run("export", FORCES, tmp_path / "served/1", "--max-atoms", 20).stdout
    assert "signatures serving_default, flat, edges; predicts energy, forces" in printed
    atoms = frames[0]
    arrays = {"Z": atoms.numbers[None].astype(np.int32), "R": atoms.positions[None].astype(np.float32)}
    model = tf.saved_model.load(str(tmp_path / "served/1"))
    answer = model.signatures["serving_default"](**{k: tf.constant(v) for k, v in arrays.items()})
    expected = dimenet_tf.load(FORCES).predict([atoms])
    np.testing.assert_allclose(answer["energy"], expected["energy"], rtol=1e-7)
    for where in (FORCES, tmp_path / "served/1"):
        told = json.loads(run("info", where).stdout)
        assert told["predicts"] == {"energy": "eV", "forces": "eV/Ang"} and told["elements"] == "H, C, O"
        assert told["parameters"] == 215046 and told["hyperparameters"]["cutoff"] == 5.0
