"""Types: the package is free of errors, and a program that uses it sees them."""

import re
from pathlib import Path

import pytest

import dimenet_tf
from helpers.paths import ROOT

api = pytest.importorskip("mypy.api", reason="mypy is not installed")
PROGRAM = {
    'predictor = dimenet_tf.load("dimenet-sample-U0")': None,
    "reveal_type(predictor)": "dimenet_tf.predictor.predictor.Predictor",
    "reveal_type(predictor.predict([]))": "dict[str, numpy.ndarray[...]]",
    "reveal_type(predictor.domain)": "dimenet_tf.predictor.domain.Domain | None",
    'reveal_type(dimenet_tf.Calculator("runs/3"))': "dimenet_tf.md.calculator.DimeNetCalculator",
    "reveal_type(dimenet_tf.md.Committee([predictor]))": "dimenet_tf.md.committee.Committee",
    "reveal_type(dimenet_tf.pretrained_models())": "dict[str, str]",
    "data = dimenet_tf.DataContainer([1], [2], [[0.0, 0.0, 0.0]])": None,
    "reveal_type(data[:1])": "dimenet_tf.structures.container.DataContainer",
    "reveal_type(len(data))": "int",
    "dimenet_tf.load(3)": 'Argument 1 to "load" has incompatible type "int"; expected "str | Path"  [arg-type]',
    "dimenet_tf.Predicter": 'Module has no attribute "Predicter"',
    "dimenet_tf.md.Committe": 'Module has no attribute "Committe"',
}


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return str(tmp_path_factory.mktemp("mypy"))


@pytest.fixture(autouse=True)
def at_root(monkeypatch):
    monkeypatch.chdir(ROOT)  # of pyproject.toml
    monkeypatch.setenv("MYPYPATH", str(ROOT))


def test_the_package_has_no_errors(cache):
    printed, errors, status = api.run(["--cache-dir", cache])
    assert status == 0, printed + errors


def test_a_program_sees_the_types(cache, tmp_path):
    assert Path(dimenet_tf.__file__).with_name("py.typed").exists()
    path = tmp_path / "program.py"
    path.write_text("\n".join(["import dimenet_tf", *PROGRAM]))
    printed, errors, _ = api.run(["--cache-dir", cache, str(path)])
    assert not errors
    found = dict(re.findall(r"program[.]py:(\d+): \w+: (?:Revealed type is )?(.*)", printed))
    expected = {str(line): text for line, text in enumerate(PROGRAM.values(), start=2) if text is not None}
    assert set(found) == set(expected), printed
    for line, text in expected.items():
        shown = re.sub(r"numpy[.]ndarray\[.*\]\]", "numpy.ndarray[...]]", found[line].strip('"'))  # as NumPy's version
        assert shown.startswith(text), printed
