"""Real training processes that are killed and started again."""

import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
import tensorflow as tf

import dimenet_tf
from helpers.paths import ROOT
from helpers.processes import ONE_THREAD, SETTINGS, finish, prepared, start, wait_for


@pytest.fixture
def cwd(tmp_path) -> Path:
    return prepared(tmp_path)


def events(run: Path) -> list[tuple]:
    """Read the events for TensorBoard, without times, in order of steps."""
    found = []
    for path in (run / "tensorboard").glob("events*"):
        for event in tf.compat.v1.train.summary_iterator(str(path)):
            for value in event.summary.value:
                if value.tag != "train/steps_per_second":
                    found.append((event.step, value.tag, tf.make_ndarray(value.tensor).tobytes()))
    return sorted(found)


def assert_same_run(a: Path, b: Path) -> None:
    """Weights, optimizer, metrics, logs and test results are the same bit for bit."""
    assert (a / "metrics.csv").read_text() == (b / "metrics.csv").read_text()
    assert (a / "test.json").read_text() == (b / "test.json").read_text()
    assert events(a) == events(b)
    states = [sorted((run / "checkpoints").glob("0*"))[-1] / "state" for run in (a, b)]
    readers = [tf.train.load_checkpoint(str(state)) for state in states]
    names = [set(reader.get_variable_to_shape_map()) for reader in readers]
    assert names[0] == names[1] and any("average" in name for name in names[0])
    for name in names[0] - {"_CHECKPOINTABLE_OBJECT_GRAPH"}:
        first, second = (reader.get_tensor(name) for reader in readers)
        assert np.array_equal(first, second), name
    with h5py.File(a / "best/weights.h5") as first, h5py.File(b / "best/weights.h5") as second:
        first.visititems(
            lambda name, item: (
                np.testing.assert_array_equal(item[()], second[name][()]) if isinstance(item, h5py.Dataset) else None
            )
        )


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> Path:
    """A run that nobody killed."""
    cwd = prepared(tmp_path_factory.mktemp("undisturbed"))
    finish(start(cwd, "training.num_steps=300"), cwd)
    return cwd / "runs/a"


@pytest.mark.parametrize("kills", [3, pytest.param(10, marks=pytest.mark.slow)])
def test_a_killed_run_ends_as_if_it_had_not_been(cwd, undisturbed, kills):
    seed = random.randrange(10**6)
    print("seed", seed)  # pytest shows it where the test fails
    moment = random.Random(seed)
    code = None
    for _ in range(kills):
        process = start(cwd, "training.num_steps=300")
        wait_for(process, cwd, moment.choice(["memory: ", "memory: ", "loss|best model"]))
        time.sleep(moment.uniform(0, 1.5))
        code = process.poll()
        if code is not None:  # it was faster
            break
        process.kill()
        process.wait()
    assert code in (None, 0)
    finish(start(cwd, "training.num_steps=300"), cwd)
    assert_same_run(undisturbed, cwd / "runs/a")


MOMENTS = [
    "training.checkpoints.Checkpoints.save",  # a checkpoint is due
    "training.checkpoints.sha256",  # its files are written, their checksums not
    "training.checkpoints.folder_to_disk",  # it is renamed, older ones are still there
    "runs.folder.RunFolder.append_metrics",  # a validation is being written down
    "runs.folder.RunFolder.replace_best",
    "runs.folder.file_to_disk",  # of the two files of the best model none is replaced
    "runs.events.Event.FromString",  # TensorBoard's files are being cleaned
]


def run_with_accident(cwd: Path, function: str, accident: str) -> subprocess.CompletedProcess:
    """Train in a process in which a statement is executed when a function is called the third time."""
    room, module, *names = function.split(".")
    program = (
        "import os, runpy, signal, sys\n"
        f"import dimenet_tf.{room}.{module} as module\n"
        f"owner = {'.'.join(['module', *names[:-1]])}\n"
        f"original, calls = getattr(owner, {names[-1]!r}), []\n"
        "def counted(*args, **kwargs):\n"
        "    calls.append(1)\n"
        f"    if len(calls) == 3: {accident}\n"
        "    return original(*args, **kwargs)\n"
        f"setattr(owner, {names[-1]!r}, counted)\n"
        f"sys.argv = ['run_train.py', 'with', *{SETTINGS!r}, 'training.num_steps=300']\n"
        f"runpy.run_path({str(ROOT / 'run_train.py')!r}, run_name='__main__')\n"
    )
    environment = {**os.environ, **ONE_THREAD}
    return subprocess.run([sys.executable, "-c", program], cwd=cwd, text=True, capture_output=True, env=environment)


@pytest.mark.slow
def test_killed_at_the_worst_moments(cwd, undisturbed):
    """Each process ends, as by kill -9, when it calls a function for the third time."""
    for function in MOMENTS:
        result = run_with_accident(cwd, function, "os._exit(9)")
        assert result.returncode == 9, (function, result.stderr)
    finish(start(cwd, "training.num_steps=300"), cwd)
    assert_same_run(undisturbed, cwd / "runs/a")


def test_a_signal_while_validating(cwd, undisturbed):
    """The saved state has made its steps but not this validation, so the next session begins with it."""
    result = run_with_accident(cwd, "training.validation.Validation.run", "os.kill(os.getpid(), signal.SIGTERM)")
    assert result.returncode == 75, result.stderr
    assert "stopped at step 30;" in result.stdout
    assert (cwd / "runs/a/metrics.csv").read_text().splitlines()[-1].startswith("20,")
    assert "resuming from step 30" in finish(start(cwd, "training.num_steps=300"), cwd)
    assert_same_run(undisturbed, cwd / "runs/a")


def test_sigterm_saves_and_has_a_code_of_its_own(cwd, undisturbed):
    process = start(cwd, "training.num_steps=300")
    wait_for(process, cwd, r"[3-9]\d/300 .*loss")
    process.send_signal(signal.SIGTERM)
    text = finish(process, cwd, code=75)
    step = int(re.search(r"stopped at step (\d+); continue with: dimenet-tf train run=runs/a", text).group(1))
    assert f"step-{step}" in sorted((cwd / "runs/a/checkpoints").glob("0*"))[-1].name
    again = start(cwd, "training.num_steps=300")
    assert f"resuming from step {step}" in finish(again, cwd)
    assert_same_run(undisturbed, cwd / "runs/a")


def test_a_second_process_is_refused(cwd):
    process = start(cwd, "training.num_steps=100000")
    wait_for(process, cwd, "memory: ")
    second = subprocess.run(
        [sys.executable, str(ROOT / "run_train.py"), "with", *SETTINGS], cwd=cwd, text=True, capture_output=True
    )
    assert second.returncode == 2
    assert second.stderr.splitlines() == ["error: another process is training in runs/a"]
    process.kill()
    process.wait()


def test_a_full_disk_leaves_the_last_checkpoint(cwd):
    """Files may become no larger than the best model: writing fails in the middle of a checkpoint."""
    finish(start(cwd, "training.num_steps=10"), cwd)
    before = sorted((cwd / "runs/a/checkpoints").glob("0*"))[-1]
    size = (cwd / "runs/a/best/weights.h5").stat().st_size
    limited = (
        f"import resource, sys, runpy; resource.setrlimit(resource.RLIMIT_FSIZE, ({size}, {size})); "
        f"sys.argv = ['run_train.py', 'with', *{SETTINGS!r}, 'training.num_steps=20']; "
        f"runpy.run_path({str(ROOT / 'run_train.py')!r}, run_name='__main__')"
    )
    result = subprocess.run([sys.executable, "-c", limited], cwd=cwd, text=True, capture_output=True)
    assert result.returncode == 2, result.stderr
    message = result.stderr.splitlines()[-1]
    assert message.startswith("error: the checkpoint of step 20 could not be written: ")
    assert f"the last one, {before.relative_to(cwd)}, is whole" in message
    assert "Traceback" not in result.stderr and not (cwd / "runs/a/checkpoints/new").exists()
    assert dimenet_tf.load(cwd / "runs/a").units == {"U0": "eV"}  # the best model is whole
    assert "resuming from step 10" in finish(start(cwd, "training.num_steps=20"), cwd)
