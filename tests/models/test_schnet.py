"""SchNet: the published implementation's numbers, and its files."""

import numpy as np
import pytest

from dimenet_tf.errors import UserError
from dimenet_tf.interop import load_schnetpack
from helpers.numerics import error
from helpers.paths import FILES

SMALL = FILES / "schnet_small.npz"
ELEMENTS = [1, 6, 7, 8]


@pytest.mark.parametrize("dtype, tolerance", [("float64", 1e-9), ("float32", 1e-5)])
def test_energies_and_forces(dtype, tolerance):
    predictor = load_schnetpack(SMALL, ELEMENTS, "eV", dtype)
    assert predictor.model_name == "schnet"
    reference = np.load(SMALL)
    N, Z, R = (reference[f"in/{name}"] for name in "NZR")
    prediction = predictor.predict_graph(predictor.graph_store(N, Z, R).batch(range(len(N))))
    assert error(prediction.values[:, 0], reference["out64/E"]) < tolerance
    assert error(prediction.forces, reference["out64/F"]) < tolerance


def test_edges_are_those_of_the_reference():
    predictor, reference = load_schnetpack(SMALL, ELEMENTS, "eV"), np.load(SMALL)
    graph = predictor.graph_store(*(reference[f"in/{name}"] for name in "NZR")).batch(range(5))
    np.testing.assert_array_equal(graph.edge_target, reference["idx/idx_i"])
    np.testing.assert_array_equal(graph.edge_source, reference["idx/idx_j"])


def test_files_that_lack_or_have_too_much(tmp_path):
    weights = {name[2:]: array for name, array in np.load(SMALL).items() if name.startswith("w/")}

    def load_without(name, **more):
        some = {key: array for key, array in weights.items() if key != name}
        np.savez(tmp_path / "schnet.npz", **some, **more)
        return load_schnetpack(tmp_path / "schnet.npz", ELEMENTS, "eV")

    with pytest.raises(UserError, match=r"no array 'representation.filter_net' \(PaiNN\) or .*in2f' \(SchNet\)"):
        load_without("representation.interactions.0.in2f.weight")
    with pytest.raises(UserError, match="no array 'representation.cutoff_fn'"):
        load_without("representation.cutoff_fn.cutoff")
    with pytest.raises(UserError, match="int_blocks/1/filter_2/bias"):
        load_without("representation.interactions.1.filter_network.1.bias")
    with pytest.raises(UserError, match="unexpected array 'other'; is this a PaiNN or SchNet of SchNetPack"):
        load_without("", other=np.zeros(3))
