"""The TensorFlow checkpoints of the authors' release of DimeNet and DimeNet++ (gasteigerjo/dimenet)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from dimenet_tf.errors import UserError
from dimenet_tf.predictor import Predictor
from dimenet_tf.predictor.weights import assign_weights
from dimenet_tf.properties.heads import scalar_head
from dimenet_tf.structures.quantities import find_property

SUFFIX = "/.ATTRIBUTES/VARIABLE_VALUE"
NO_WEIGHTS = ("_CHECKPOINTABLE_OBJECT_GRAPH", "save_counter" + SUFFIX)
QM9_ELEMENTS = (1, 6, 7, 8, 9)
OUTPUT_ZEROS = ("mu", "homo", "lumo", "zpve")
"""Targets whose released models started from zero outputs; for all others output_init was GlorotOrthogonal."""


def load_dimenet_checkpoint(
    folder: str | Path,
    model: str = "dimenet_pp",
    target: str | Sequence[str] = "U0",
    elements: Sequence[int] = QM9_ELEMENTS,
    dtype: str = "float32",
    **hyperparameters: Any,
) -> Predictor:
    """Load a checkpoint of the authors' release, `pretrained/<model>/<target>/` there.

    Parameters
    ----------
    folder : holds `checkpoint`, `ckpt.index`, `ckpt.data-*`
    model : "dimenet" or "dimenet_pp"
    target : the property that the model was trained on, or several, in order
    elements : atomic numbers of its training data; QM9's by default
    dtype : "float32" or "float64"
    **hyperparameters : where they differ from the published ones

    Returns
    -------
    Predictor
        `predict` gives the target in QM9's unit (electronvolt for energies). U0, U, H, G are atomization energies. The
        released models predict properties as they are: there is nothing to scale or to add.

    Raises
    ------
    UserError
        If a variable is missing, unexpected or of another shape than the model's; names it.

    Examples
    --------
    With a downloaded file, therefore not run as a test:

    >>> predictor = load_dimenet_checkpoint("pretrained/dimenet_pp/U0", "dimenet_pp")  # doctest: +SKIP
    >>> predictor.predict("molecules.xyz")["U0"]  # doctest: +SKIP
    """
    folder = Path(folder)
    if hyperparameters.get("conventions", "official") != "official":
        raise UserError("released weights need conventions: official")
    targets = [target] if isinstance(target, str) else list(target)
    weights = read_checkpoint(folder)
    head = scalar_head(
        targets,
        [find_property(name).unit for name in targets],
        np.zeros((len(targets), 95)),
        np.zeros(len(targets)),
        np.ones(len(targets)),
        hyperparameters.get("extensive", True),
    )
    hyperparameters = {**hyperparameters, "num_targets": len(targets), "conventions": "official"}
    if "output_init" not in hyperparameters and targets[0] in OUTPUT_ZEROS:
        hyperparameters["output_init"] = "zeros"
    predictor = Predictor(model, hyperparameters, head, elements, dtype)
    assign_weights(predictor.model, weights, str(folder))
    return predictor


def read_checkpoint(folder: str | Path) -> dict[str, np.ndarray]:
    """Return the variables of a checkpoint folder by their paths, which are this library's names as well."""
    folder = Path(folder)
    prefix = tf.train.latest_checkpoint(str(folder))
    if prefix is None:
        raise UserError(f"{folder} holds no checkpoint (the files checkpoint, ckpt.index and ckpt.data-*)")
    try:
        reader = tf.train.load_checkpoint(prefix)
        names = [name for name in reader.get_variable_to_shape_map() if name not in NO_WEIGHTS]
        return {name.removesuffix(SUFFIX): reader.get_tensor(name) for name in names}
    except (tf.errors.OpError, ValueError, RuntimeError) as error:
        raise UserError(f"{prefix}: unreadable checkpoint ({str(error).splitlines()[0]})") from None
