"""Training of a tiny model in processes that tests disturb."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from dimenet_tf.data import sample
from helpers.paths import ROOT

ONE_THREAD = {"TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1", "OMP_NUM_THREADS": "1"}
SETTINGS = (
    "run=runs/a data.path=small.npz data.num_train=40 data.num_valid=10 model.name=dimenet_pp model.emb_size=8 "
    "model.out_emb_size=8 model.int_emb_size=8 model.num_blocks=1 training.batch_size=4 training.warmup_steps=2 "
    "training.evaluation_interval=10 training.log_interval=1 training.histogram_interval=5"
).split()


def start(cwd: Path, *settings: str, log: str = "log", **environment: str) -> subprocess.Popen:
    """Start training on one thread, with its output in a file."""
    command = [sys.executable, str(ROOT / "run_train.py"), "with", *SETTINGS, *settings]
    with (cwd / log).open("w") as log:
        env = {**os.environ, **ONE_THREAD, "PYTHONUNBUFFERED": "1", **environment}
        return subprocess.Popen(command, cwd=cwd, stdout=log, stderr=subprocess.STDOUT, env=env)


def printed(cwd: Path, log: str = "log") -> str:
    """Return the text that a process has printed so far."""
    return (cwd / log).read_text()


def wait_for(process: subprocess.Popen, cwd: Path, pattern: str, log: str = "log") -> re.Match:
    """Wait until the process has printed a line that matches a pattern."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if found := re.search(pattern, printed(cwd, log)):
            return found
        assert process.poll() is None, printed(cwd, log)
        time.sleep(0.05)
    process.kill()
    raise AssertionError(f"no '{pattern}' in: {printed(cwd, log)}")


def finish(process: subprocess.Popen, cwd: Path, code: int = 0, log: str = "log") -> str:
    """Wait until the process ends and return its output."""
    assert process.wait(timeout=240) == code, printed(cwd, log)
    assert "Traceback" not in printed(cwd, log), printed(cwd, log)
    return printed(cwd, log)


def prepared(folder: Path) -> Path:
    """Return a folder with a small data set."""
    folder.mkdir(exist_ok=True)
    data = sample().select(np.arange(60))
    np.savez(folder / "small.npz", N=data.N, Z=data.Z, R=data.R, U0=data.targets["U0"])
    return folder
