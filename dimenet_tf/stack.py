"""Keras 2 on every TensorFlow. TensorFlow 2.16 and later bring Keras 3, and Keras 2 as the package tf-keras."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import sys

SWITCH = "TF_USE_LEGACY_KERAS"  # TensorFlow reads it when `tf.keras` is used for the first time


def use_keras_2() -> None:
    """Make `tf.keras` Keras 2; called before any module of the library uses it.

    Raises
    ------
    ImportError
        If tf-keras is missing, or `tf.keras` is Keras 3 in this process already.
    """
    try:
        keras = importlib.metadata.version("keras")
    except importlib.metadata.PackageNotFoundError:
        return  # importing TensorFlow will report what is missing
    if keras.startswith("2."):
        return
    if importlib.util.find_spec("tf_keras") is None:
        raise ImportError(
            "dimenet_tf needs Keras 2, and the installed TensorFlow comes with Keras 3: install the package tf-keras "
            "in TensorFlow's version, for instance `pip install 'tf-keras==2.21.*'` for TensorFlow 2.21"
        )
    before = os.environ.get(SWITCH)
    os.environ[SWITCH] = "1"
    tensorflow = sys.modules.get("tensorflow")
    if tensorflow is not None and not tensorflow.keras.Model.__module__.startswith("tf_keras"):
        reason = f"the environment variable {SWITCH} is {before}" if before else "tf.keras was used before"
        raise ImportError(
            f"dimenet_tf needs Keras 2, but tf.keras is Keras 3 in this process ({reason}): import dimenet_tf before "
            f"tf.keras is used, or set {SWITCH}=1 before Python starts. `import keras` still gives Keras 3"
        )
