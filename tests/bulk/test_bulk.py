"""Prediction at scale: pieces, restarts, shards and processes; nothing is lost, reordered or computed in vain."""

import gzip
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase.build import molecule
from ase.calculators.singlepoint import SinglePointCalculator

from dimenet_tf.bulk import predict_file, run
from dimenet_tf.bulk.job import Job
from dimenet_tf.data import read_file
from dimenet_tf.errors import UserError
from dimenet_tf.structures.streams import count_molecules, open_stream
from helpers.models import force_field, two_targets
from helpers.paths import ROOT

NAMES = ("CH3CH2OH", "H2O", "CO2", "H2")
SOME = 30


def some_frames(count=SOME, names=NAMES) -> list:
    """Distinct molecules with names of their own."""
    rng, frames = np.random.default_rng(0), []
    for i in range(count):
        atoms = molecule(names[i % len(names)])
        atoms.positions += 0.02 * rng.standard_normal(atoms.positions.shape)
        atoms.info["id"] = f"m{i}"
        frames.append(atoms)
    return frames


def flat(frames) -> dict[str, np.ndarray]:
    return {
        "N": np.array([len(a) for a in frames]),
        "Z": np.concatenate([a.numbers for a in frames]),
        "R": np.concatenate([a.positions for a in frames]),
        "id": np.array([a.info["id"] for a in frames]),
    }


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> dict:
    predictors = {"forces": force_field(dtype="float32"), "two": two_targets()}
    folder = tmp_path_factory.mktemp("models")
    for name, predictor in predictors.items():
        predictor.to_folder(folder / name)
    return {"folder": folder, **predictors}


@pytest.fixture
def there(tmp_path, models, monkeypatch):
    """A folder with the models and an input; models are read once for all tests."""
    for name in ("forces", "two"):
        shutil.copytree(models["folder"] / name, tmp_path / name)
    ase.io.write(tmp_path / "in.extxyz", some_frames())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(run, "load", lambda path: models[Path(path).name])
    return tmp_path


def stop_after(monkeypatch, pieces: int) -> None:
    """Let a prediction end after some pieces."""
    publish, left = Job.publish_piece, iter(range(pieces))

    def stopping(*args):
        if next(left, None) is None:
            raise KeyboardInterrupt
        publish(*args)

    monkeypatch.setattr(Job, "publish_piece", stopping)


# reading


def test_every_format_gives_the_same_molecules(there):
    frames = ase.io.read("in.extxyz", ":")
    np.savez("a.npz", **flat(frames))
    np.savez_compressed("b.npz", **flat(frames))
    with gzip.open("c.xyz.gz", "wb") as file:
        file.write(Path("in.extxyz").read_bytes())
    ase.io.write("d.traj", frames)
    Path("e.xyz").write_text(Path("in.extxyz").read_text().replace("\n2\n", "\n\n2\n") + "\n\n")  # empty lines between
    for name in ("in.extxyz", "a.npz", "b.npz", "c.xyz.gz", "d.traj", "e.xyz"):
        assert count_molecules(name) == SOME
        with open_stream(name) as stream:
            read = stream.take(4).to_atoms()
            assert stream.skip(3) == 3
            read += frames[4:7] + stream.take(100).to_atoms()
            assert len(stream.take(5).N) == 0 and stream.skip(5) == 0
        assert len(read) == SOME
        for ours, theirs in zip(read, frames):
            assert ours.get_chemical_symbols() == theirs.get_chemical_symbols()
            np.testing.assert_allclose(ours.positions, theirs.positions, atol=1e-12)
            if name != "d.traj":  # which has no `info`
                assert ours.info["id"] == theirs.info["id"]


@pytest.mark.parametrize("names", [("z", "R"), ("nuclear_charges", "coords")])
def test_geometries_of_one_molecule(tmp_path, names):
    frames = some_frames(5, ("H2O",))
    arrays = {names[0]: frames[0].numbers.astype(np.uint8), names[1]: np.stack([a.positions for a in frames])}
    np.savez(tmp_path / "md.npz", **arrays, E=np.zeros(5), r_unit="a0")
    with open_stream(tmp_path / "md.npz") as stream:
        assert stream.skip(2) == 2
        read = stream.take(9).to_atoms()
    assert len(read) == 3
    np.testing.assert_allclose(read[0].positions, 0.529177 * frames[2].positions, atol=1e-5)


def test_errors_of_files_name_the_molecule(tmp_path):
    path = tmp_path / "a.xyz"

    def error(text) -> str:
        path.write_text(text)
        with pytest.raises(UserError) as caught, open_stream(path) as stream:
            stream.take(9)
        return str(caught.value)

    water = "3\n\nO 0 0 0\nH 0 0 1\nH 0 1 0\n"
    assert "line 6: expected the number of atoms of molecule 1, got 'H 9 9 9'" in error(water + "H 9 9 9\n")
    assert "ends inside molecule 1, which begins in line 6" in error(water + "3\n\nO 0 0 0\n")
    assert "molecule 1, line 8: 'q' is not a number (column pos)" in error(water + water.replace("O 0", "O q"))
    arrays = flat(some_frames(4))
    for change, message in (
        ({"N": arrays["N"] + 1}, "N does not add up to the"),
        ({"N": arrays["N"][:-1]}, "4 ids for 3 molecules"),
        ({"R": arrays["R"][1:]}, "R for"),
        ({"R": np.asfortranarray(arrays["R"])}, "stored column by column"),
        ({"id": np.array([{}] * 4)}, "without pickled objects"),
    ):
        np.savez(tmp_path / "a.npz", **{**arrays, **change})
        with pytest.raises(UserError, match=message), open_stream(tmp_path / "a.npz") as stream:
            stream.take(9)


def test_impossible_atomic_numbers_are_left_to_the_check_of_their_molecule(tmp_path):
    arrays = flat(some_frames(3))
    arrays["Z"][0] = 200
    np.savez(tmp_path / "a.npz", **arrays)
    with open_stream(tmp_path / "a.npz") as stream:
        molecules = stream.take(9)
    assert molecules.Z[0] == 200
    first, second, _ = molecules.to_atoms()  # ASE knows no such element
    assert first.numbers[0] == 0 and (second.numbers > 0).all()


def test_errors_of_the_caller_are_no_errors_of_the_file(there):
    np.savez("in.npz", **flat(some_frames(2)))
    for name in ("in.npz", "in.extxyz"):
        with pytest.raises(ValueError, match="of the caller") as caught, open_stream(name):
            raise ValueError("of the caller")
        assert not isinstance(caught.value, UserError)


# one process


@pytest.mark.parametrize("model", ["forces", "two"])
@pytest.mark.parametrize("source", ["in.extxyz", "in.npz"])
def test_both_outputs_hold_what_predict_says(there, models, model, source):
    frames = ase.io.read("in.extxyz", ":")
    np.savez("in.npz", **flat(frames))
    expected = models[model].predict(frames)
    for target in ("out.extxyz", "out.npz"):
        assert f"{SOME} molecules: {target}" in predict_file(model, source, target, batch_size=4, piece=7)
    with np.load("out.npz") as arrays:
        assert arrays["id"].tolist() == [f"m{i}" for i in range(SOME)]
        for name in models[model].head.targets:
            np.testing.assert_allclose(arrays[name], expected[name], rtol=1e-6)
        if model == "forces":
            assert arrays["N"].tolist() == [len(a) for a in frames]
            real = np.arange(expected["forces"].shape[1]) < arrays["N"][:, None]
            np.testing.assert_allclose(arrays["forces"], expected["forces"][real], atol=1e-4)
        else:
            assert sorted(arrays.files) == ["U0", "id", "mu"]
    for i, atoms in enumerate(ase.io.read("out.extxyz", ":")):
        assert atoms.info["id"] == f"m{i}"
        if model == "forces":
            assert atoms.get_potential_energy() == pytest.approx(expected["energy"][i], rel=1e-6)
            np.testing.assert_allclose(atoms.get_forces(), expected["forces"][i, : len(atoms)], atol=1e-4)
        else:
            assert atoms.info["mu"] == pytest.approx(expected["mu"][i], rel=1e-6)
    assert not list(there.glob(".*"))


@pytest.mark.parametrize("target", ["out.extxyz", "out.npz"])
def test_the_same_call_goes_on(there, models, monkeypatch, capsys, target):
    predict_file("forces", "in.extxyz", f"whole.{target}", piece=7)
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        stop_after(patched, 2)
        predict_file("forces", "in.extxyz", target, piece=7)
    assert not Path(target).exists()
    computed = []
    monkeypatch.setattr(run, "predict_piece", spy(run.predict_piece, computed))
    predict_file("forces", "in.extxyz", target, piece=7)
    assert computed == [14, 21, 28]
    assert f"14 of {SOME} molecules are there already, in .{target}.parts" in capsys.readouterr().out
    assert Path(target).read_bytes() == Path(f"whole.{target}").read_bytes()


def spy(function, seen: list):
    def spied(predictor, frames, first, *rest):
        seen.append(first)
        return function(predictor, frames, first, *rest)

    return spied


def test_shards_in_any_order(there, models):
    predict_file("forces", "in.extxyz", "whole.npz", piece=4)
    said = [predict_file("forces", "in.extxyz", "out.npz", piece=4, shard=(k, 3)) for k in (3, 1, 2)]
    assert said[0] == f"shard 3/3 is complete; 22 of {SOME} molecules of others are left"
    assert said[1].startswith("shard 1/3 is complete; 10 of") and said[2] == f"{SOME} molecules: out.npz"
    assert Path("out.npz").read_bytes() == Path("whole.npz").read_bytes()


def test_another_job_is_refused(there, models, monkeypatch):
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        stop_after(patched, 1)
        predict_file("forces", "in.extxyz", "out.npz", piece=7)
    for change, message in (
        ({"model": "two"}, "model: "),
        ({"piece": 8}, "piece: 7 there, 8 here"),
        ({"batch_size": 2}, "batch size: 32 there, 2 here"),
        ({"source": "other.extxyz"}, "input: in.extxyz there, other.extxyz here"),
    ):
        shutil.copy("in.extxyz", "other.extxyz")
        arguments = {"model": "forces", "source": "in.extxyz", "target": "out.npz", "piece": 7, **change}
        with pytest.raises(UserError, match=r"^\.out\.npz\.parts holds .* remove that folder, or choose") as caught:
            predict_file(**arguments)
        assert message in str(caught.value)
    os.utime("in.extxyz", (1, 1))
    with pytest.raises(UserError, match="time of the input"):
        predict_file("forces", "in.extxyz", "out.npz", piece=7)
    for path in Path(".out.npz.parts").glob("0*"):
        path.unlink()  # without finished pieces there is nothing to lose
    assert predict_file("two", "in.extxyz", "out.npz") == f"{SOME} molecules: out.npz"


def test_bad_molecules_stop_or_keep_their_places(there, models):
    frames = ase.io.read("in.extxyz", ":")
    frames[5].numbers[0] = 7
    frames[5].info["U0"] = 1.0  # a number of the data set, which must not look like a prediction
    frames[6].positions[1] = np.nan
    frames[20].pbc = True
    ase.io.write("in.extxyz", frames)
    for target in ("out.extxyz", "out.npz"):
        with pytest.raises(UserError, match=r"in\.extxyz: molecule 5 contains N, .* --on-bad skip"):
            predict_file("two", "in.extxyz", target, piece=4)
        assert len(list(Path(f".{target}.parts").glob("0*"))) == 1  # molecules 0 ... 3
        said = predict_file("two", "in.extxyz", target, piece=4, on_bad="skip")
        assert said.startswith(f"{SOME} molecules: {target}; 3 of them could not be predicted, the first: molecule 5 ")
    bad, good = [5, 6, 20], [i for i in range(SOME) if i not in (5, 6, 20)]
    expected = models["two"].predict([frames[i] for i in good])["U0"]
    with np.load("out.npz") as arrays:
        assert np.isnan(arrays["U0"][bad]).all() and np.isnan(arrays["mu"][bad]).all() and len(arrays["id"]) == SOME
        np.testing.assert_allclose(arrays["U0"][good], expected, rtol=1e-6)
    written = ase.io.read("out.extxyz", ":")
    np.testing.assert_allclose([written[i].info["U0"] for i in good], expected, rtol=1e-6)
    for i, reason in zip(bad, ("contains N", "is not finite", "is periodic; the model was trained on molecules")):
        assert reason in written[i].info["error"] and f"molecule {i}" in written[i].info["error"]
        assert "U0" not in written[i].info and written[i].info["id"] == f"m{i}"


def test_every_fault_of_a_piece_is_found(there, models):
    """Whatever else is wrong in the piece: a coordinate that is not finite, an element that the model lacks."""
    frames = ase.io.read("in.extxyz", ":")
    frames[1].positions[0] = np.nan
    frames[2].numbers[0] = 7
    frames[3].positions[1] = frames[3].positions[0]
    frames[4].info["charge"] = "plus"
    frames[5].info["charge"] = 1
    ase.io.write("in.traj", frames)
    said = predict_file("two", "in.traj", "out.extxyz", piece=10, batch_size=4, on_bad="skip")
    assert "5 of them could not be predicted, the first: molecule 1 has a coordinate that is not finite" in said
    errors = [atoms.info.get("error") for atoms in ase.io.read("out.extxyz", ":")]
    assert errors[2].startswith("molecule 2 contains N, which the training data did not")
    assert errors[3] == "molecule 3 has two atoms at the same place"
    assert errors[4] == "molecule 4 cannot be read: 'charge' must be a number, got 'plus'"
    assert errors[5].startswith("molecule 5 has charge 1 and spin multiplicity 1, expected charge 0")
    assert errors[0] is None and errors[6:] == [None] * (SOME - 6)
    ase.io.write("charge.traj", frames[4])
    for read in (read_file, models["two"].predict):
        with pytest.raises(UserError, match=r"molecule 0 cannot be read: 'charge' must be a number, got 'plus'"):
            read("charge.traj")


def test_forces_of_bad_molecules_are_not_numbers(there, models):
    frames = ase.io.read("in.extxyz", ":")
    frames[1].numbers[0] = 7
    ase.io.write("in.extxyz", frames)
    predict_file("forces", "in.extxyz", "out.npz", piece=4, on_bad="skip")
    predict_file("forces", "in.extxyz", "out.extxyz", piece=4, on_bad="skip")
    with np.load("out.npz") as arrays:
        bad = np.repeat(np.arange(SOME) == 1, arrays["N"])
        assert np.isnan(arrays["forces"][bad]).all() and np.isfinite(arrays["forces"][~bad]).all()
        assert arrays["forces"].shape == (sum(map(len, frames)), 3)
    assert [atoms.calc is None for atoms in ase.io.read("out.extxyz", ":3")] == [False, True, False]


def test_without_ids_molecules_are_numbered(there, models):
    frames = ase.io.read("in.extxyz", ":")
    del frames[17].info["id"]
    ase.io.write("in.extxyz", frames)
    predict_file("two", "in.extxyz", "out.npz", piece=4)
    with np.load("out.npz") as arrays:
        assert arrays["id"].tolist() == list(range(SOME))


def test_two_that_work_on_the_same_job(there, models, monkeypatch):
    """The second one begins, ends and joins while the first one computes its second piece."""
    predict_file("forces", "in.extxyz", "whole.npz", piece=7)
    compute, calls = run.predict_piece, []

    def meanwhile(predictor, frames, first, *rest):
        if not calls and first == 7:
            calls.append(first)
            assert predict_file("forces", "in.extxyz", "out.npz", piece=7) == f"{SOME} molecules: out.npz"
        return compute(predictor, frames, first, *rest)

    monkeypatch.setattr(run, "predict_piece", meanwhile)
    assert predict_file("forces", "in.extxyz", "out.npz", piece=7) == "completed by another process: out.npz"
    assert Path("out.npz").read_bytes() == Path("whole.npz").read_bytes()
    assert not list(there.glob(".*"))


def test_two_shards_that_end_at_once(there, models, monkeypatch):
    """The other one ends and joins before this one looks at what is left."""
    share = run.predict_share

    def then_the_other(*args):
        notes = share(*args)
        monkeypatch.setattr(run, "predict_share", share)
        assert predict_file("forces", "in.extxyz", "out.npz", piece=7, shard=(2, 2)) == f"{SOME} molecules: out.npz"
        return notes

    monkeypatch.setattr(run, "predict_share", then_the_other)
    said = predict_file("forces", "in.extxyz", "out.npz", piece=7, shard=(1, 2))
    assert said == "completed by another process: out.npz" and not list(there.glob(".*"))


def test_numbers_of_the_input_are_replaced(there, models):
    frames = ase.io.read("in.extxyz", ":")
    for atoms in frames:
        atoms.calc = SinglePointCalculator(atoms, energy=1.0, forces=np.ones((len(atoms), 3)), dipole=np.ones(3))
    ase.io.write("in.extxyz", frames)
    predict_file("forces", "in.extxyz", "out.extxyz")
    written, expected = ase.io.read("out.extxyz", ":"), models["forces"].predict(frames)
    np.testing.assert_allclose([a.get_potential_energy() for a in written], expected["energy"], rtol=1e-6)
    np.testing.assert_allclose(written[0].get_forces(), expected["forces"][0, : len(frames[0])], atol=1e-4)


def test_a_removed_folder_is_an_error(there, models, monkeypatch):
    compute = run.predict_piece

    def removing(*args):
        shutil.rmtree(".out.npz.parts")
        return compute(*args)

    Path("out.npz").write_text("of an earlier run")
    monkeypatch.setattr(run, "predict_piece", removing)
    with pytest.raises(UserError, match="was removed while its pieces were computed"):
        predict_file("forces", "in.extxyz", "out.npz", piece=7)
    assert Path("out.npz").read_text() == "of an earlier run"


@pytest.mark.parametrize("moment", ["before", "after"])
def test_stopped_while_joining(there, models, monkeypatch, moment):
    """Killed before the target was renamed, or while the folder was removed."""
    predict_file("forces", "in.extxyz", "whole.npz", piece=7)

    def killed(path, **_):
        if moment == "before" or path == Path(".out.npz.parts"):
            raise KeyboardInterrupt
        remove(path, ignore_errors=True)

    remove = shutil.rmtree
    predict_file("forces", "in.extxyz", "out.npz", piece=7, shard=(1, 2))  # the folder is there
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(*((Job, "join") if moment == "before" else (shutil, "rmtree")), killed)
        predict_file("forces", "in.extxyz", "out.npz", piece=7)
    assert Path(".out.npz.parts").exists()
    monkeypatch.setattr(run, "load", None)  # nothing is computed again
    said = predict_file("forces", "in.extxyz", "out.npz", piece=7)
    assert said == ("30 molecules: out.npz" if moment == "before" else "complete already: out.npz")
    assert Path("out.npz").read_bytes() == Path("whole.npz").read_bytes() and not list(there.glob(".*"))


@pytest.mark.parametrize(
    "change, message",
    [
        ({"target": "out.csv"}, "written as extended XYZ"),
        ({"target": "in.extxyz"}, "is the input"),
        ({"target": "no/out.npz"}, "no such folder: no"),
        ({"source": "no.npz"}, "no such file: no.npz"),
        ({"processes": 0}, "--processes 0 must be at least 1"),
        ({"piece": 0}, "--piece 0 must"),
        ({"shard": (3, 2)}, "--shard 3/2 must be"),
        ({"model": "nothing"}, "no such run or model"),
    ],
)
def test_mistakes(there, models, change, message):
    with pytest.raises(UserError, match=message):
        predict_file(**{"model": "forces", "source": "in.extxyz", "target": "out.npz", **change})
    assert not list(there.glob(".*"))


# several processes


def start(*arguments) -> subprocess.Popen:
    """Start a prediction in a process group of its own, one thread each."""
    command = [sys.executable, "-m", "dimenet_tf", "predict", *map(str, arguments)]
    environment = {**os.environ, "TF_NUM_INTRAOP_THREADS": "1", "PYTHONPATH": str(ROOT)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "stdin": subprocess.DEVNULL}
    return subprocess.Popen(command, text=True, env=environment, start_new_session=True, **pipes)


def finished_pieces() -> int:
    return len(list(Path(".out.extxyz.parts").glob("0*.extxyz")))


def wait_for(condition, seconds=120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def is_alive(pid: int) -> bool:
    status = Path(f"/proc/{pid}/status")
    return status.exists() and "State:\tZ" not in status.read_text()


def uninterrupted(count: int) -> bytes:
    """Make an input; return the output of one process that nothing stops."""
    ase.io.write("in.extxyz", some_frames(count))
    predict_file("two", "in.extxyz", "whole.extxyz", batch_size=2, piece=5)
    return Path("whole.extxyz").read_bytes()


linux = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="looks at processes")
JOB = ("two", "in.extxyz", "out.extxyz", "--batch-size", 2, "--piece", 5)


@linux
@pytest.mark.slow
def test_stopped_in_three_ways_it_goes_on(there, models):
    count = 1500  # of molecules: long enough that no process ends before it is stopped
    expected = uninterrupted(count)
    for way in ("a worker is killed", "Ctrl-C", "the parent is killed"):
        before = finished_pieces()
        process = start(*JOB, "--processes", 2)
        wait_for(lambda before=before: finished_pieces() > before)
        workers = children(process.pid)
        assert len(workers) == 2
        if way == "Ctrl-C":
            os.killpg(process.pid, signal.SIGINT)
        else:
            os.kill(workers[0] if way == "a worker is killed" else process.pid, signal.SIGKILL)
        said, errors = process.communicate(timeout=60)
        last = (errors.splitlines() or [""])[-1]
        if way == "a worker is killed":
            assert process.returncode == 2 and last.startswith("error: process") and "was ended by SIGKILL" in last
        elif way == "Ctrl-C":
            assert process.returncode == 130 and "the same command continues from here" in last
            assert f"{5 * before} of {count} molecules are there already" in said
        assert "Traceback" not in errors
        wait_for(lambda workers=workers: not any(map(is_alive, workers)), 10)
        assert not Path("out.extxyz").exists()
    assert predict_file("two", "in.extxyz", "out.extxyz", batch_size=2, piece=5) == f"{count} molecules: out.extxyz"
    assert Path("out.extxyz").read_bytes() == expected
    assert not list(there.glob(".*"))


@linux
@pytest.mark.slow
def test_killed_at_random_moments_it_goes_on(there, models):
    expected = uninterrupted(5000)
    moments, kills = random.Random(0), 0
    while not Path("out.extxyz").exists():
        processes = ("--processes", 2) if kills % 2 else ()
        process = start(*JOB, *processes)
        try:
            process.communicate(timeout=moments.uniform(2, 12) if kills < 6 else 300)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            kills += 1
    assert kills
    assert Path("out.extxyz").read_bytes() == expected


def test_the_error_of_a_worker_is_that_of_the_command(there):
    frames = some_frames(20)
    frames[2].numbers[0] = 7
    ase.io.write("in.extxyz", frames)
    with pytest.raises(UserError, match=r"^in\.extxyz: molecule 2 contains N.*--on-bad skip.* are kept"):
        predict_file("two", "in.extxyz", "out.extxyz", piece=5, processes=2)


# memory

GROWTH = """
    import json, sys
    from pathlib import Path
    from dimenet_tf.bulk import predict_file, run
    from dimenet_tf.structures.streams import count_molecules
    from dimenet_tf.predictor import load

    def most():  # memory at most so far, MB; the figure of `resource` would include the parent's
        status = Path("/proc/self/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) / 1024

    predictor = load("forces")
    run.load = lambda path: predictor
    peaks = []
    for size in ("few", "many"):
        for source, target in ((f"{size}.extxyz", f"{size}.out.npz"), (f"{size}.npz", f"{size}.out.extxyz")):
            predict_file("forces", source, target, piece=100)
        peaks.append(most())
    print(json.dumps([peaks, predictor.graph_function.experimental_get_tracing_count()]))
"""


@linux
def test_memory_does_not_grow_with_the_input(there):
    few = some_frames(200)
    np.savez("few.npz", **flat(few))
    many = [molecule(name) for name in NAMES] * 5  # with much else to read: 4000 molecules in 60 MB of npz and text
    for i, atoms in enumerate(many):
        atoms.info["id"] = f"m{i}"
    ase.io.write("few.extxyz", few)
    text = "".join(f"{len(a)}\nid=m{' ' * 10_000}\n{_rows(a)}" for a in many)
    Path("many.extxyz").write_text(text * 200)
    arrays = {name: np.concatenate([array] * 200) for name, array in flat(many).items()}
    arrays["id"] = arrays["id"].astype("U2500")
    np.savez("many.npz", **arrays)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    code = textwrap.dedent(GROWTH)
    result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    (few, many), traces = json.loads(result.stdout.splitlines()[-1])
    assert Path("many.extxyz").stat().st_size > 40e6 and Path("many.npz").stat().st_size > 40e6
    assert many - few < 40, (few, many)  # MB
    assert traces == 1


def _rows(atoms) -> str:
    return "".join(f"{s} {x} {y} {z}\n" for s, (x, y, z) in zip(atoms.symbols, atoms.positions))
