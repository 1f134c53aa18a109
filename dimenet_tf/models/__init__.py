"""Architectures, one file for each; `MODELS` maps their names to their classes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import tensorflow as tf

from dimenet_tf.errors import UserError, check_choice, unknown_name

# one line for each model, whose key is the name of its file
from dimenet_tf.models.dimenet import DimeNet as DimeNet
from dimenet_tf.models.dimenet_pp import DimeNetPP as DimeNetPP
from dimenet_tf.models.dpgn import DPGN as DPGN
from dimenet_tf.models.gemnet import GemNet as GemNet
from dimenet_tf.models.hyperparameters import Hyperparameters, check_type
from dimenet_tf.models.hyperparameters import hyperparameters as defaults_of
from dimenet_tf.models.painn import PaiNN as PaiNN
from dimenet_tf.models.precision import PRECISIONS as PRECISIONS
from dimenet_tf.models.precision import policy_of as policy_of
from dimenet_tf.models.precision import set_matrix_products
from dimenet_tf.models.schnet import SchNet as SchNet
from dimenet_tf.models.spherenet import SphereNet as SphereNet

MODELS: dict[str, type[tf.keras.Model]] = {
    kind.__module__.rpartition(".")[2]: kind
    for kind in tuple(globals().values())
    if isinstance(kind, type) and issubclass(kind, Hyperparameters) and kind is not Hyperparameters
}


def find_model(name: str, what: str = "model") -> str:
    """Return the key of `MODELS` for a name, ignoring case, hyphens and underscores.

    Parameters
    ----------
    name : str
    what : noun for the named object in the error

    Raises
    ------
    UserError
        For an unknown name, with the closest known one.

    Examples
    --------
    >>> find_model("DimeNet++"), find_model("PaiNN"), find_model("dimenet-pp")
    ('dimenet_pp', 'painn', 'dimenet_pp')
    """
    known = {_plain(key): key for key in MODELS}
    if _plain(str(name)) not in known:
        raise unknown_name(what, str(name), MODELS)
    return known[_plain(str(name))]


def _plain(name: str) -> str:
    return "".join(letter for letter in name.lower().replace("+", "p") if letter not in "-_ ")


def unknown_hyperparameter(model: str, key: str, known: Iterable[str], section: str = "") -> UserError:
    """Make the error for an unknown key of a model, with the models that have it or the closest key.

    Parameters
    ----------
    model : a key of `MODELS`
    key : the unknown key
    known : keys that the model takes
    section : prefix of keys in messages, "model." for those of a configuration
    """
    have = [name for name, kind in MODELS.items() if key in defaults_of(kind)]
    if have and model not in have:
        return UserError(f"'{section}{key}' is a key of {', '.join(have)}; {model} has none of that name")
    what = "key" if section else f"hyperparameter of {model}"
    return unknown_name(what, f"{section}{key}", [f"{section}{other}" for other in known])


def build_model(name: str, dtype: str = "float32", **hyperparameters: Any) -> tf.keras.Model:
    """Make a model with its weights.

    Parameters
    ----------
    name : a key of `MODELS`, or another spelling of it: "DimeNet++", "PaiNN", "dimenet-pp"
    dtype : "float32", "float64", "mixed_bfloat16" or "tensorfloat32" (see `dimenet_tf.models.precision`)
    **hyperparameters : the model's constructor arguments

    Returns
    -------
    Keras model, `model(graph) -> AtomOutputs`

    Raises
    ------
    UserError
        For an unknown name or hyperparameter, with the closest known one; for values of another type or out of range.

    Examples
    --------
    >>> import dimenet_tf
    >>> model = dimenet_tf.build_model("DimeNet++", emb_size=64, num_blocks=3)
    >>> model.count_params()
    1017606
    >>> dimenet_tf.build_model("PaiNN", embsize=64)
    Traceback (most recent call last):
        ...
    dimenet_tf.errors.UserError: unknown hyperparameter of painn 'embsize'; did you mean 'emb_size'?
    """
    name = find_model(name)
    check_choice("dtype", dtype, PRECISIONS)
    known = defaults_of(MODELS[name])
    for key, value in hyperparameters.items():
        if key not in known:
            raise unknown_hyperparameter(name, key, known)
        hyperparameters[key] = check_type(key, value, (type(known[key]),))
    set_matrix_products(dtype)
    model = MODELS[name](dtype=policy_of(dtype), **hyperparameters)
    model.make_weights()
    return model
