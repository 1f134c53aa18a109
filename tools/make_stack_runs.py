"""Make tests/files/stacks/tfX.Y: what one TensorFlow has written and the other must read.

python tools/make_stack_runs.py        # with each of the two TensorFlows

A run of 20 steps, the losses of 20 more, the model as NAME.keras and as a SavedModel, and what it predicts.
"""

import json
import shutil
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import tensorflow as tf

import dimenet_tf
from dimenet_tf.config.build import data_config
from dimenet_tf.config.schema import resolve
from dimenet_tf.data.dataset import load_container
from dimenet_tf.runs.folder import RunFolder
from dimenet_tf.training.session import run_session

CONFIG = {
    "model": {
        "name": "dimenet_pp",
        **{"emb_size": 16, "out_emb_size": 16, "int_emb_size": 8, "basis_emb_size": 4, "num_blocks": 1},
        **{"num_spherical": 4, "num_radial": 4, "cutoff": 3.5},
    },
    "data": {"name": "ethanol_xtb", "target": ["energy", "forces"], "num_train": 40, "num_valid": 10},
    "training": {
        **{"num_steps": 20, "warmup_steps": 5, "decay_steps": 40, "evaluation_interval": 20, "batch_size": 4},
        **{"learning_rate": 2e-3, "weight_decay": 1.0},
    },
}
KEPT = ("config.yaml", "data.json", "split.npz", "metrics.csv", "best", "checkpoints")  # of the run


def configuration(num_steps: int, evaluation_interval: int = 1) -> dict:
    """Return the run's configuration with another length; validations after every step write every loss."""
    lengths = {"num_steps": num_steps, "evaluation_interval": evaluation_interval}
    return resolve({**CONFIG, "training": {**CONFIG["training"], **lengths}})


def losses_of_more_steps(run: Path) -> list[float]:
    """Continue a run for 20 steps and return their losses."""
    folder = RunFolder(run)
    run_session(configuration(40), folder)
    return [row["loss"] for row in folder.read_metrics() if row["step"] > 20]


def main() -> None:
    version = ".".join(tf.__version__.split(".")[:2])
    target = ROOT / f"tests/files/stacks/tf{version}"
    shutil.rmtree(target, ignore_errors=True)
    run, scratch = target / "run", target / "scratch"
    run_session(configuration(20, 20), RunFolder(run))
    for path in run.iterdir():
        if path.name not in KEPT:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    first, *_ = sorted(run.glob("checkpoints/*-step-0"))
    shutil.rmtree(first)
    shutil.copytree(run, scratch)
    losses = losses_of_more_steps(scratch)
    shutil.rmtree(scratch)
    predictor = dimenet_tf.load(run)
    predictor.save(target / "model.keras")
    predictor.export(str(target / "served/1"))
    frames = load_container(data_config(configuration(20))).to_atoms()[:2]
    Z, R = (np.stack(arrays) for arrays in zip(*((atoms.numbers, atoms.positions) for atoms in frames)))
    predicted = predictor.predict({"Z": Z, "R": R})
    expected = {"losses": losses, "Z": Z.tolist(), "R": R.tolist()}
    expected |= {name: np.asarray(predicted[name]).tolist() for name in ("energy", "forces")}
    (target / "expected.json").write_text(json.dumps(expected, indent=1))


if __name__ == "__main__":
    main()
