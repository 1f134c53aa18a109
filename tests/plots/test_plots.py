import subprocess
import sys

import pytest

from dimenet_tf.models import MODELS, build_model
from dimenet_tf.models.dimenet_pp import DimeNetPP
from dimenet_tf.models.hyperparameters import Hyperparameters
from dimenet_tf.plots.pictures import draw
from dimenet_tf.predictor import Predictor
from dimenet_tf.properties.heads import scalar_head
from helpers.models import SMALL, randomize

SIZES = {name: (name, SMALL[name]) for name in MODELS} | {
    "gemnet-dT": ("gemnet", {**SMALL["gemnet"], "direct_forces": True, "triplets_only": True}),
    "dimenet-nodes": ("dimenet", {**SMALL["dimenet"], "embeddings": "nodes"}),
    "spherenet-smooth": ("spherenet", {**SMALL["spherenet"], "torsion": "smooth"}),
}
SPHERICAL = {"basis_radial", "basis_spherical"}
# files of the two kinds of pictures; two blocks have filters
BASES = {name: SPHERICAL for name in SIZES} | {
    "painn": {"basis_radial"},
    "schnet": {"basis_radial"},
    "dpgn": SPHERICAL | {"basis_radial_4_Angstrom"},
    **{
        name: {"basis_radial", "basis_circular"}
        | (set() if SIZES[name][1].get("triplets_only") else {"basis_circular_quadruplets", "basis_spherical"})
        for name in ("gemnet", "gemnet-dT")
    },
}


def saved(name, options, folder):
    head = scalar_head(["U0"], ["eV"], [[0.0] * 95], [0.0], [1.0])
    predictor = Predictor(name, options, head, [1, 6, 8])
    randomize(predictor.model)
    predictor.to_folder(folder)
    return str(folder)


@pytest.fixture(params=SIZES)
def model(request, tmp_path):
    return request.param, saved(*SIZES[request.param], tmp_path / "model")


def test_pictures_of_models(model, tmp_path):
    name, folder = model
    drawn = {kind: draw(kind, folder, tmp_path / kind) for kind in ("basis", "filters", "architecture")}
    assert {path.stem for path in drawn["basis"]} == BASES[name]
    filters = [path.stem for path in drawn["filters"]]
    assert len(filters) == len(set(filters)) and all(path.startswith(("filters_0", "filters_1")) for path in filters)
    assert len([path for path in filters if path.startswith("filters_0")]) == len(filters) / 2
    assert [path.name for path in drawn["architecture"]] == ["architecture.png"]
    assert all(path.stat().st_size > 10_000 for paths in drawn.values() for path in paths)


def test_a_model_without_pictures_of_its_own_is_drawn(monkeypatch, tmp_path):
    """The defaults: all basis layers, the output for two atoms instead of filters, the layers."""
    for method in ("filter_pictures", "architecture", "basis_pictures"):
        monkeypatch.setattr(DimeNetPP, method, getattr(Hyperparameters, method))
    folder = saved("dimenet_pp", SMALL["dimenet_pp"], tmp_path / "model")
    assert {path.stem for path in draw("basis", folder, tmp_path)} == SPHERICAL
    assert [path.stem for path in draw("filters", folder, tmp_path)] == ["pairs"]
    (path,) = draw("architecture", folder, tmp_path)
    assert path.stat().st_size > 10_000
    diagram = build_model("dimenet_pp", **SMALL["dimenet_pp"]).architecture()
    assert [box[4].split("\n")[0] for box in diagram.boxes] == [
        "graph",
        "BesselBasis",
        "SphericalBasis",
        "EmbeddingBlock",
        "InteractionBlock x 2",
        "OutputBlock x 3",
        "outputs of the atoms",
    ]


def test_curves_need_a_run(tmp_path):
    command = [sys.executable, "-m", "dimenet_tf", "plot", "curves", str(tmp_path / "nowhere")]
    result = subprocess.run(command, text=True, capture_output=True)
    assert result.returncode == 2 and result.stderr == f"error: no such run or model: {tmp_path / 'nowhere'}\n"
