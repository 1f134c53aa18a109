"""Training by two processes that find each other as machines do."""

import json
import os
import re
import signal
import socket
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from dimenet_tf.training.distribution import slurm_addresses
from helpers.processes import finish, prepared, printed, start, wait_for

MULTI = "training.strategy=multi_worker"


def start_workers(cwd: Path, *settings: str) -> list:
    """Start a chief and another worker; what they print goes to the files `log0` and `log1`."""
    sockets = [socket.socket() for _ in range(2)]
    for s in sockets:
        s.bind(("localhost", 0))
    addresses = [f"localhost:{s.getsockname()[1]}" for s in sockets]
    for s in sockets:
        s.close()
    cluster = {"worker": addresses}
    return [
        start(
            cwd,
            MULTI,
            *settings,
            log=f"log{i}",
            TF_CONFIG=json.dumps({"cluster": cluster, "task": {"type": "worker", "index": i}}),
        )
        for i in range(2)
    ]


@pytest.fixture
def cwd(tmp_path) -> Path:
    return prepared(tmp_path)


def last_state(run: Path) -> dict[str, np.ndarray]:
    reader = tf.train.load_checkpoint(str(sorted((run / "checkpoints").glob("0*"))[-1] / "state"))
    return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map() if "VALUE" in name}


@pytest.mark.slow
def test_two_workers_are_one_and_go_on_after_one_is_killed(cwd):
    finish(start(cwd, "training.num_steps=40", "training.strategy=none", "run=runs/alone"), cwd)
    chief, worker = start_workers(cwd, "training.num_steps=40")
    for number, process in enumerate((chief, worker)):
        finish(process, cwd, log=f"log{number}")
    assert "40/40" in printed(cwd, "log0") and "test molecules" in printed(cwd, "log0")
    assert printed(cwd, "log1") == ""  # the chief speaks for all
    one, two = last_state(cwd / "runs/alone"), last_state(cwd / "runs/a")
    assert set(one) == set(two)
    for name, value in one.items():  # weights, and averages and moments of their own sizes
        np.testing.assert_allclose(two[name], value, rtol=1e-4, atol=1e-5 * np.abs(value).max(), err_msg=name)

    workers = start_workers(cwd, "training.num_steps=100000")
    wait_for(workers[0], cwd, r"[5-9]\d/100000.*validation", log="log0")
    workers[1].kill()
    text = finish(workers[0], cwd, code=2, log="log0")
    # not every error of the connection says whose end it is
    lost = r"error: the connection to ({}|another worker) is lost: .* Start all workers again"
    assert re.search(lost.format(r"worker 1 \(localhost:\d+\)"), text), text
    last = sorted((cwd / "runs/a/checkpoints").glob("0*"))[-1].name.split("-")[2]
    assert int(last) >= 50

    chief, worker = start_workers(cwd, "training.num_steps=100000")
    wait_for(chief, cwd, f"resuming from step {last}", log="log0")
    wait_for(chief, cwd, "/100000.*validation", log="log0")
    chief.kill()
    text = finish(worker, cwd, code=2, log="log1")
    assert re.search(lost.format(r"worker 0 \(localhost:\d+\)"), text), text

    chief, worker = start_workers(cwd, "training.num_steps=100000")
    wait_for(chief, cwd, "/100000.*validation", log="log0")
    worker.send_signal(signal.SIGTERM)  # as a queue does, and not always to all
    text = finish(chief, cwd, code=75, log="log0")
    finish(worker, cwd, code=75, log="log1")
    assert re.search(r"stopped at step \d+; continue with", text)


def test_slurm_says_who_takes_part(cwd):
    step = {"SLURM_JOB_ID": str(os.getpid()), "SLURM_STEP_NODELIST": "localhost", "SLURM_STEP_TASKS_PER_NODE": "2"}
    workers = [start(cwd, MULTI, "training.num_steps=2", log=f"log{i}", SLURM_PROCID=str(i), **step) for i in range(2)]
    for number, process in enumerate(workers):
        finish(process, cwd, log=f"log{number}")
    assert "2/2" in printed(cwd, "log0") and printed(cwd, "log1") == ""


def test_slurms_order_of_hosts():
    environment = {"SLURM_STEP_NODELIST": "node[2,10]", "SLURM_STEP_TASKS_PER_NODE": "1(x2)", "SLURM_JOB_ID": "5"}
    assert slurm_addresses(environment) == ["node2:20080", "node10:20080"]


CLUSTER = '"cluster": {"worker": ["localhost:1", "localhost:2"]'
MISTAKES = [
    ({"TF_CONFIG": "{" + CLUSTER + '}, "task": {"type": "worker", "index": 2}}'}, "TF_CONFIG must be like "),
    (
        {"TF_CONFIG": "{" + CLUSTER + ', "chief": []}, "task": {"type": "worker", "index": 0}}'},
        "TF_CONFIG must be like ",
    ),
    ({}, "training.strategy: multi_worker needs TF_CONFIG, or Slurm's srun"),
    ({"TF_CONFIG": "{"}, 'TF_CONFIG must be like {"cluster": '),
    ({"TF_CONFIG": '{"cluster": {}}'}, 'TF_CONFIG must be like {"cluster": '),
]


@pytest.mark.parametrize("environment, message", MISTAKES)
def test_mistakes(cwd, environment, message):
    text = finish(start(cwd, MULTI, **environment), cwd, code=2)
    assert len(text.splitlines()) == 1 and text.startswith(f"error: {message}")


def test_workers_share_a_named_run(cwd):
    text = finish(start(cwd, MULTI, "run=None", "training.num_steps=4"), cwd, code=2)
    assert text == "error: training.strategy: multi_worker needs the name of the run that all share: run=runs/NAME\n"
