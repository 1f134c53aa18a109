"""A model takes one file, one YAML and one line, as CONTRIBUTING.md describes it: SchNet under another name."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LINE = "from dimenet_tf.models.toy import Toy as Toy\n"
CHEAP = "rotation permutation batch_is weight_has_a_gradient finite_differences mixed round_trip".split()


@pytest.fixture(scope="module")
def overlay(tmp_path_factory) -> Path:
    """A copy of the package with one more model."""
    folder = tmp_path_factory.mktemp("overlay")
    for part in ("dimenet_tf", "configs"):
        shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
    model = (folder / "dimenet_tf/models/schnet.py").read_text()
    (folder / "dimenet_tf/models/toy.py").write_text(model.replace("class SchNet(", "class Toy("))
    configuration = (folder / "configs/schnet.yaml").read_text()
    (folder / "configs/toy.yaml").write_text(configuration.replace("name: schnet", "name: toy"))
    path = folder / "dimenet_tf/models/__init__.py"
    text = path.read_text()
    before = "from dimenet_tf.models.spherenet import"
    assert text.count(before) == 1
    path.write_text(text.replace(before, LINE + before))
    return folder


def run(overlay: Path, *arguments: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(overlay), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, *arguments]
    result = subprocess.run(command, cwd=overlay, env=environment, text=True, capture_output=True)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def test_the_contract_finds_the_model(overlay):
    """The subset of tests/models/test_model_contract.py that is cheap."""
    chosen = f"toy and ({' or '.join(CHEAP)})"
    contract = str(ROOT / "tests/models/test_model_contract.py")
    report = run(overlay, "-m", "pytest", contract, "-k", chosen, "-n", "0", "-p", "no:cacheprovider", "-rA", "-q")
    passed = [line for line in report.splitlines() if line.startswith("PASSED")]
    for test in CHEAP:
        assert any(test in line for line in passed), test


def test_it_is_trained_and_drawn(overlay):
    keys = "training.num_steps=5 data.num_train=64 data.num_valid=16 training.batch_size=8 model.num_blocks=2".split()
    printed = run(overlay, "-m", "dimenet_tf", "train", "toy", *keys)
    assert "memory: about" in printed
    assert (overlay / "runs/1/checkpoints").exists()
    draw = "import sys; from pathlib import Path; from dimenet_tf.plots.pictures import draw; "
    draw += "print([p.name for kind in ('basis', 'filters', 'architecture') for p in draw(kind, 'runs/1', Path('p'))])"
    assert (
        run(overlay, "-c", draw).strip() == "['basis_radial.png', 'filters_0.png', 'filters_1.png', 'architecture.png']"
    )


def test_the_file_is_short():
    assert len((ROOT / "dimenet_tf/models/schnet.py").read_text().splitlines()) < 170
    assert "dimenet_tf/models/schnet.py" in (ROOT / "CONTRIBUTING.md").read_text()
