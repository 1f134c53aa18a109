"""The TensorFlow checkpoints of the authors' release of GemNet (TUM-DAML/gemnet_tf)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from dimenet_tf.heads import scalar_head
from dimenet_tf.interop.dimenet import read_checkpoint
from dimenet_tf.predictor import Predictor
from dimenet_tf.weights import assign_weights

NAMES = (
    (r"dense_mlp/layer_with_weights-0", "dense_1"),
    (r"dense_mlp/layer_with_weights-1", "dense_2"),
    (r"up_projection_(ca|ac)", r"up_projection/\1"),
)


def load_gemnet_checkpoint(
    folder: str | Path, elements: Sequence[int], dtype: str = "float32", **hyperparameters
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
    """
    head = scalar_head(["energy"], ["eV"], np.zeros((1, 95)), [0.0], [1.0], hyperparameters.get("extensive", True))
    predictor = Predictor("gemnet", hyperparameters, head, elements, dtype, energy="energy")
    weights = from_official(read_checkpoint(folder), predictor.model.num_spherical)
    assign_weights(predictor.model, weights, str(folder))
    return predictor


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


def official_order(num_spherical: int) -> list[int]:
    """Return where each harmonic, m = -l ... l, stands among the authors', m = 0 ... l, -l ... -1 of each degree."""
    return [l**2 + m % (2 * l + 1) for l in range(num_spherical) for m in range(-l, l + 1)]  # noqa: E741
