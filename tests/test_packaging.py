"""Declarations of the package, and errors for deprecated calls."""

import json
import subprocess
import sys

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

import dimenet_tf
from dimenet_tf.bulk import job
from dimenet_tf.errors import UserError, import_optional
from dimenet_tf.md import committee
from dimenet_tf.predictor import property_model
from helpers.models import force_field
from helpers.paths import ROOT


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


@pytest.fixture(scope="module")
def declared() -> dict:
    """Return the arguments of `setup` in setup.py."""
    code = (
        "import json, runpy, setuptools; setuptools.setup = lambda **given: print(json.dumps(given)); "
        "runpy.run_path('setup.py')"
    )
    return json.loads(subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, text=True))


def required(requirements: list[str], python: str) -> dict[str, str]:
    """Return the versions of packages that a version of Python gets, by name."""
    found = [Requirement(text) for text in requirements]
    return {r.name: str(r.specifier) for r in found if not r.marker or r.marker.evaluate({"python_version": python})}


def test_version(declared):
    assert declared["version"] == dimenet_tf.__version__


def test_citation_has_the_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == dimenet_tf.__version__
    assert f"## {citation['version']} ({citation['date-released']})" in (ROOT / "CHANGELOG.md").read_text()


@pytest.mark.parametrize("python", ["3.9", "3.10", "3.11", "3.12", "3.13"])
def test_each_python_gets_one_tensorflow(declared, python):
    newer = python in ("3.12", "3.13")
    packages = required(declared["install_requires"], python)
    assert packages["tensorflow"] == ("==2.21.*" if newer else "==2.15.1")
    assert ("tf-keras" in packages, "tensorflow-addons" in packages) == (newer, not newer)
    serving = required(declared["extras_require"]["serving"], python)
    assert serving == {"tensorflow-serving-api": packages["tensorflow"]}


def test_conda_requires_what_pip_does(declared):
    recipe = yaml.safe_load((ROOT / "conda/recipe.yaml").read_text())
    assert recipe["context"]["version"] == dimenet_tf.__version__
    names = {"matplotlib-base": "matplotlib", "pyyaml": "PyYAML"}
    conda = dict(line.split(" ", 1) for line in recipe["requirements"]["run"])
    assert conda.pop("python") == ">=3.12,<3.14"
    conda = {names.get(name, name): SpecifierSet(v if v[0] in "<>" else f"=={v}") for name, v in conda.items()}
    assert conda == {name: SpecifierSet(v) for name, v in required(declared["install_requires"], "3.12").items()}


def test_installation_without_dependencies_lists_all_of_them(declared):
    """docs/installation.md: TensorFlow 2.21 on Python 3.10 and 3.11."""
    text = (ROOT / "docs/installation.md").read_text()
    command = text.split("pip install", 1)[1].split("## TensorFlow 2.21")[1].split("```")[1].splitlines()[1:3]
    words = " ".join(command).replace("\\", "").replace('"', "").removeprefix("pip install").split()
    listed = {Requirement(word).name for word in words}
    assert listed == set(required(declared["install_requires"], "3.12"))


def test_documented_formats_are_those_of_the_code():
    rows = {}
    for line in (ROOT / "docs/versions.md").read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("| `"):
            rows[cells[0].strip("`")] = cells[1]
    assert rows["predictor.json"] == str(property_model.FORMAT)
    assert rows["committee.json"] == str(committee.FORMAT)
    assert rows[".OUTPUT.parts/job.json"] == str(job.FORMAT)


def test_a_missing_package_is_named_with_its_extra(monkeypatch):
    for name in [name for name in sys.modules if name.startswith("tensorflow_serving.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "tensorflow_serving", None)
    with pytest.raises(UserError, match=r'tensorflow_serving is not installed; .* "dimenet-tf\[serving\]"'):
        import_optional("tensorflow_serving.apis.predict_pb2", "serving")


def test_exporting_without_the_extra_leaves_out_warmup_requests(monkeypatch, tmp_path):
    model = force_field(randomized=False)
    for name in [name for name in sys.modules if name.startswith("tensorflow_serving.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "tensorflow_serving", None)
    with pytest.warns(UserWarning, match=r'without warm-up requests .* "dimenet-tf\[serving\]"'):
        model.export(tmp_path / "1")
    assert (tmp_path / "1/saved_model.pb").exists() and not (tmp_path / "1/assets.extra").exists()
