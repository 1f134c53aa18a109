"""Devices and warnings of TensorFlow, the order of the tests, and fixtures of several files."""

import logging
import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import pytest
import tensorflow as tf

from dimenet_tf.models import MODELS
from helpers.equivariant import Equivariant
from helpers.models import DIMENETS

# two of them let one process test what happens on two devices
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)


class DeprecatedCalls(logging.Handler):
    """Errors for deprecated calls from the package, which TensorFlow logs instead of warning of them."""

    WRAPPERS = (__name__, "logging", "tensorflow.python.platform", "tensorflow.python.util")

    def emit(self, record: logging.LogRecord) -> None:
        caller = sys._getframe()
        while caller and caller.f_globals.get("__name__", "").startswith(self.WRAPPERS):
            caller = caller.f_back
        from_package = caller and caller.f_globals.get("__name__", "").startswith("dimenet_tf")
        if from_package and " is deprecated" in record.getMessage():
            raise DeprecationWarning(record.getMessage())


tf.get_logger().addHandler(DeprecatedCalls())


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the folders with the longest files first: at the end one process would wait for the other."""
    longest = ["integration", "training", "bulk", "models", "predictor"]

    def place(item: pytest.Item) -> int:
        folder = item.path.parent.name
        return longest.index(folder) if folder in longest else len(longest)

    items.sort(key=place)


@pytest.fixture(params=DIMENETS)
def model_name(request) -> str:
    return request.param


@pytest.fixture
def equivariant(monkeypatch) -> None:
    """Make `Equivariant` known by name, as the models of the package are."""
    monkeypatch.setitem(MODELS, "equivariant", Equivariant)
