"""Precision of matrix products."""

import pytest
import tensorflow as tf

import dimenet_tf
from dimenet_tf.models import precision
from helpers.models import SMALL, force_field

on = tf.config.experimental.tensor_float_32_execution_enabled


@pytest.fixture(autouse=True)
def new_process(monkeypatch):
    """Let a test begin as a process without models, and end with exact products."""
    monkeypatch.setattr(precision, "_asked", set())
    yield
    tf.config.experimental.enable_tensor_float_32_execution(False)


@pytest.mark.parametrize("dtype", ["float32", "float64", "mixed_bfloat16"])
def test_products_are_exact_unless_asked_otherwise(dtype):
    tf.config.experimental.enable_tensor_float_32_execution(True)  # TensorFlow's default
    dimenet_tf.build_model("painn", dtype, **SMALL["painn"])
    assert not on()


def test_tensorfloat32_is_for_a_process_without_models_in_float32():
    dimenet_tf.build_model("painn", "tensorfloat32", **SMALL["painn"])
    assert on()
    dimenet_tf.build_model("painn", "float64", **SMALL["painn"])
    assert on()
    for dtype in ("float32", "tensorfloat32"):
        with pytest.warns(UserWarning, match="has models of tensorfloat32 and of float32: all multiply in full"):
            dimenet_tf.build_model("painn", dtype, **SMALL["painn"])
        assert not on()


def test_a_predictor_keeps_its_precision(tmp_path):
    force_field("painn", "tensorfloat32").to_folder(tmp_path)
    loaded = dimenet_tf.load(tmp_path)
    assert loaded.precision == "tensorfloat32" and loaded.dtype == "float32" and on()
