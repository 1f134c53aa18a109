import subprocess
import sys

import pytest

from dimenet_tf.plots.pictures import draw
from dimenet_tf.predictor import Predictor
from dimenet_tf.properties.heads import scalar_head
from helpers.models import DIMENETS, SMALL, randomize


@pytest.fixture(params=[*DIMENETS, "dpgn", "painn", "spherenet"])
def folder(tmp_path, request):
    model_name = request.param
    head = scalar_head(["U0"], ["eV"], [[0.0] * 95], [0.0], [1.0])
    predictor = Predictor(model_name, SMALL[model_name], head, [1, 6, 8])
    randomize(predictor.model)
    predictor.to_folder(tmp_path / model_name)
    return tmp_path / model_name


@pytest.mark.parametrize("kind", ["basis", "filters", "architecture"])
def test_pictures_of_models(folder, tmp_path, kind):
    paths = draw(kind, str(folder), tmp_path / "plots")
    painn = folder.name == "painn"  # has no second basis
    assert len(paths) == {"basis": 1 if painn else 2, "filters": 2, "architecture": 1}[kind]
    assert all(path.stat().st_size > 10_000 for path in paths)


def test_curves_need_a_run(tmp_path):
    command = [sys.executable, "-m", "dimenet_tf", "plot", "curves", str(tmp_path / "nowhere")]
    result = subprocess.run(command, text=True, capture_output=True)
    assert result.returncode == 2 and result.stderr == f"error: no such run or model: {tmp_path / 'nowhere'}\n"
