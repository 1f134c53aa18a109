"""What is declared of the package, and that the tests would notice deprecated calls."""

import subprocess
import sys
from pathlib import Path

import pytest
from test_forces import force_field

import dimenet_tf
from dimenet_tf.errors import UserError, import_optional

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    "code",
    [
        "import warnings; warnings.warn('gone soon', DeprecationWarning)",
        "import warnings; warnings.warn('another default soon', FutureWarning)",
        "import tensorflow as tf; tf.compat.v1.to_float(1)",
    ],
)
def test_deprecated_calls_from_the_package_are_errors(code):
    with pytest.raises((DeprecationWarning, FutureWarning)):
        exec(code, {"__name__": "dimenet_tf.layers.made_up"})


def test_version():
    printed = subprocess.check_output([sys.executable, "setup.py", "--version"], cwd=ROOT, text=True)
    assert printed.split()[-1] == dimenet_tf.__version__


def test_a_missing_package_is_named_with_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_serving", None)
    with pytest.raises(UserError, match=r'tensorflow_serving is not installed; .* "dimenet-tf\[serving\]"'):
        import_optional("tensorflow_serving.apis.predict_pb2", "serving")


def test_exporting_without_the_extra_leaves_out_warmup_requests(monkeypatch, tmp_path):
    predictor = force_field(randomized=False)
    for name in [name for name in sys.modules if name.startswith("tensorflow_serving.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "tensorflow_serving", None)
    with pytest.warns(UserWarning, match=r'without warm-up requests .* "dimenet-tf\[serving\]"'):
        predictor.export(tmp_path / "1")
    assert (tmp_path / "1/saved_model.pb").exists() and not (tmp_path / "1/assets.extra").exists()
