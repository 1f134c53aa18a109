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

    By default TensorFlow multiplies float32 matrices in TensorFloat-32, which changes forces by up to 1e-3 of the
    largest one. This library does so for the precision "tensorfloat32" alone. TensorFlow has one switch for the whole
    process: it stays off as soon as the process has made a model that computes in float32. Models in float64 do not
    matter.

    Parameters
    ----------
    precision : of a model that is being made, an element of `PRECISIONS`

    Raises
    ------
    UserWarning
        Where a process has models of "tensorfloat32" and of float32, whichever of them came first.
    """
    _asked.add(precision)
    exact = _asked - {"float64", "tensorfloat32"}
    rounded = "tensorfloat32" in _asked
    tf.config.experimental.enable_tensor_float_32_execution(rounded and not exact)
    if rounded and exact:
        warnings.warn(
            f"this process has models of tensorfloat32 and of {', '.join(sorted(exact))}: all multiply in full "
            "float32, which is slower than tensorfloat32. Use a process for each precision",
            stacklevel=2,
        )
