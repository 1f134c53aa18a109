"""Precisions of models, and how NVIDIA cards multiply matrices in them."""

from __future__ import annotations

import warnings

import tensorflow as tf

PRECISIONS = ("float32", "float64", "mixed_bfloat16", "tensorfloat32")

_asked: set[str] = set()  # precisions of the models made in this process


def policy_of(precision: str) -> str:
    """Return the name of the Keras policy of a precision.

    Examples
    --------
    >>> policy_of("tensorfloat32"), policy_of("mixed_bfloat16")
    ('float32', 'mixed_bfloat16')
    """
    return "float32" if precision == "tensorfloat32" else precision


def set_matrix_products(precision: str) -> None:
    """Let NVIDIA cards round the factors of float32 matrix products to 10 bits, or keep them from it.

    By default TensorFlow multiplies float32 matrices in TensorFloat-32, which changes forces by 1e-4 of their size.
    This library does so for the precision "tensorfloat32" alone. TensorFlow has one switch for the whole process: it
    stays off as soon as the process has made a model of another precision.

    Parameters
    ----------
    precision : of a model that is being made, an element of `PRECISIONS`

    Raises
    ------
    UserWarning
        Where a model asks for "tensorfloat32" in a process with models of other precisions.
    """
    _asked.add(precision)
    only = _asked == {"tensorfloat32"}
    tf.config.experimental.enable_tensor_float_32_execution(only)
    if precision == "tensorfloat32" and not only:
        others = ", ".join(sorted(_asked - {"tensorfloat32"}))
        warnings.warn(
            f"this process also has models of precision {others}: all multiply in full float32, which is slower than "
            "tensorfloat32. Use a process for each precision",
            stacklevel=2,
        )
