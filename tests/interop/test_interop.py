import json
import shutil

import numpy as np
import pytest
import tensorflow as tf

from dimenet_tf.errors import UserError
from dimenet_tf.interop import load_dimenet_checkpoint
from helpers.paths import FILES


def settings(name: str) -> tuple[dict, str]:
    description = json.loads((FILES / f"{name}_ckpt.json").read_text())
    hyperparameters = {k: v for k, v in description["hyperparameters"].items() if k != "num_targets"}
    return hyperparameters, description["targets"][0]


@pytest.mark.parametrize("dtype, tolerance", [("float32", 1e-5), ("float64", 1e-9)])
@pytest.mark.parametrize("name", ["dimenet", "dimenet_pp"])
def test_released_checkpoints_give_the_releases_numbers(name, dtype, tolerance):
    hyperparameters, target = settings(name)
    predictor = load_dimenet_checkpoint(FILES / f"{name}_ckpt", name, target, dtype=dtype, **hyperparameters)
    reference = np.load(FILES / f"{name}_ckpt.npz")
    Z, R, N = reference["in/Z"], reference["in/R"], reference["in/N"]
    padded_Z, padded_R = np.zeros((len(N), N.max()), int), np.zeros((len(N), N.max(), 3), np.float32)
    for i, (end, n) in enumerate(zip(np.cumsum(N), N)):
        padded_Z[i, :n], padded_R[i, :n] = Z[end - n : end], R[end - n : end]
    energies = predictor.predict({"Z": padded_Z, "R": padded_R})[target]
    expected = reference["out64/P"][:, 0]
    assert np.abs(energies - expected).max() < tolerance * np.abs(expected).max()
    assert predictor.units == {"U0": "eV"}


def test_mistakes_name_the_variable(tmp_path):
    hyperparameters, target = settings("dimenet_pp")
    folder = FILES / "dimenet_pp_ckpt"
    with pytest.raises(UserError, match=r"unexpected weight 'int_blocks/1/dense_ji/bias'"):
        load_dimenet_checkpoint(folder, "dimenet_pp", target, **{**hyperparameters, "num_blocks": 1})
    with pytest.raises(UserError, match=r"no weight 'int_blocks/2/dense_ji/bias'"):
        load_dimenet_checkpoint(folder, "dimenet_pp", target, **{**hyperparameters, "num_blocks": 3})
    with pytest.raises(UserError, match=r"'emb_block/dense/bias' has shape \(16,\), expected \(8,\)"):
        load_dimenet_checkpoint(folder, "dimenet_pp", target, **{**hyperparameters, "emb_size": 8})
    with pytest.raises(UserError, match="conventions: official"):
        load_dimenet_checkpoint(folder, "dimenet_pp", target, conventions="corrected")
    with pytest.raises(UserError, match="holds no checkpoint"):
        load_dimenet_checkpoint(tmp_path, "dimenet_pp", target)
    shutil.copytree(folder, tmp_path / "cut")
    (tmp_path / "cut/ckpt.index").write_bytes(b"no index")
    with pytest.raises(UserError, match="unreadable checkpoint"):
        load_dimenet_checkpoint(tmp_path / "cut", "dimenet_pp", target, **hyperparameters)


def test_checkpoint_of_another_kind(tmp_path):
    tf.train.Checkpoint(v=tf.Variable(1.0)).save(str(tmp_path / "ckpt"))
    with pytest.raises(UserError, match=r"no weight 'emb_block/dense/bias' \(\d+ are missing\)"):
        load_dimenet_checkpoint(tmp_path, "dimenet_pp", "U0", emb_size=8, num_blocks=1)
