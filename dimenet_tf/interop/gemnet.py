"""Weights of the authors' releases of GemNet: checkpoints of TUM-DAML/gemnet_tf, state dicts of gemnet_pytorch."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dimenet_tf.basis.formulas import official_order
from dimenet_tf.interop.dimenet import read_checkpoint
from dimenet_tf.predictor import Predictor
from dimenet_tf.predictor.weights import assign_weights
from dimenet_tf.properties.heads import scalar_head
from dimenet_tf.structures.readers import load_npz

NAMES = (
    (r"dense_mlp/layer_with_weights-0", "dense_1"),
    (r"dense_mlp/layer_with_weights-1", "dense_2"),
    (r"up_projection_(ca|ac)", r"up_projection/\1"),
)


def load_gemnet_checkpoint(
    folder: str | Path, elements: Sequence[int], dtype: str = "float32", **hyperparameters: Any
) -> Predictor:
    """Load a checkpoint of the authors' release.

    Parameters
    ----------
    folder : holds `checkpoint`, `*.index`, `*.data-*`
    elements : atomic numbers of its training data; others are refused (COLL: 1, 6, 8)
    dtype : "float32" or "float64"
    **hyperparameters : of `GemNet` where they differ from the published ones; `triplets_only` and `direct_forces` say
        which of the four models it is

    Returns
    -------
    Predictor
        of `energy` (eV, as the network gives it) and `forces`

    Raises
    ------
    UserError
        If a variable, scaling factors included, is missing, unexpected or of another shape than the model's; names it.

    Examples
    --------
    With a downloaded file, therefore not run as a test:

    >>> predictor = load_gemnet_checkpoint("coll", [1, 6, 8], triplets_only=True)  # doctest: +SKIP
    """
    return _predictor(read_checkpoint(folder), str(folder), elements, dtype, hyperparameters)


def load_gemnet_state_dict(
    file: str | Path, elements: Sequence[int], dtype: str = "float32", **hyperparameters: Any
) -> Predictor:
    """Load the weights of a PyTorch GemNet from an npz file of its state dict's arrays.

    Write it with `numpy.savez(file, **{name: value.numpy() for name, value in state_dict.items()})`. Modules are called
    as in the authors' TensorFlow release (`int_blocks.0.dense_ca.linear.weight`, with or without `linear`). That the
    numbers are the same was tried on the reference weights in this layout, not on a file of the release.

    Parameters
    ----------
    file : npz
    others : as `load_gemnet_checkpoint`

    Examples
    --------
    With a downloaded file, therefore not run as a test:

    >>> predictor = load_gemnet_state_dict("gemnet_t.npz", [1, 6, 8], triplets_only=True)  # doctest: +SKIP
    """
    return _predictor(from_torch(load_npz(file, str(file))), str(file), elements, dtype, hyperparameters)


def _predictor(weights: Mapping, source: str, elements: Sequence[int], dtype: str, hyperparameters: dict) -> Predictor:
    head = scalar_head(["energy"], ["eV"], np.zeros((1, 95)), [0.0], [1.0], hyperparameters.get("extensive", True))
    predictor = Predictor("gemnet", hyperparameters, head, elements, dtype, energy="energy")
    assign_weights(predictor.model, from_official(weights, predictor.model.num_spherical), source)
    return predictor


def from_torch(state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the arrays of a state dict under the names and in the layout of the TensorFlow checkpoints.

    Matrices of dense layers are transposed; kernels of three indices and embeddings are not.
    """
    official = {}
    for name, value in state.items():
        path = name.replace(".", "/").replace("/linear/weight", "/weight")
        path = re.sub(r"dense_mlp/(\d)/", r"dense_mlp/layer_with_weights-\1/", path)
        if path.endswith("/embeddings/weight"):
            path = path.removesuffix("/weight")
        elif path.endswith("/weight"):
            path, value = f"{path.removesuffix('/weight')}/kernel", value.T if value.ndim == 2 else value
        official[path] = value
    return official


def from_official(weights: Mapping[str, np.ndarray], num_spherical: int) -> dict[str, np.ndarray]:
    """Return the weights of a TensorFlow checkpoint of the authors under this library's names and in its order.

    Parameters
    ----------
    weights : by their paths in the checkpoint, as `dimenet_tf.interop.dimenet.read_checkpoint` returns them
    num_spherical : of the model
    """
    ours = {}
    for name, value in weights.items():
        for theirs, own in NAMES:
            name = re.sub(theirs, own, name)
        if name == "atom_emb/embeddings":  # rows of elements 1 ... 93; here 0 and 94 are there too
            value = np.pad(value, [(1, 1), (0, 0)])
        elif name == "mlp_sbf4/kernel":
            value = value[official_order(num_spherical)]
        if name in ("mlp_cbf3/kernel", "mlp_sbf4/kernel"):  # (degrees, num_radial, units)
            value = value.reshape(-1, value.shape[-1])
        ours[name] = value
    return ours
