"""Bulk prediction keeps the cells of structures and adds their stress."""

import ase.io
import numpy as np
import pytest
from ase.build import bulk, molecule

from dimenet_tf.bulk import predict_file
from dimenet_tf.data import from_atoms
from dimenet_tf.predictor.domain import Domain
from helpers.models import force_field

FRAMES = [bulk("C", "diamond"), molecule("CH4"), bulk("C", "diamond", cubic=True), bulk("C", "diamond", a=1e-3)]


@pytest.mark.parametrize("suffix", [".extxyz", ".npz"])
def test_crystals_and_molecules(suffix, tmp_path):
    predictor = force_field("painn")
    labelled = [atoms.copy() for atoms in FRAMES[:3]]
    for atoms in labelled:
        atoms.info["energy"] = 0.0
    predictor.domain = Domain.of(from_atoms(labelled, checks=None), predictor.model.cutoff)
    ase.io.write(tmp_path / "in.extxyz", FRAMES)
    target = tmp_path / f"out{suffix}"
    predictor.to_folder(tmp_path / "model")
    predict_file(tmp_path / "model", tmp_path / "in.extxyz", target, on_bad="skip", piece=2)
    expected = predictor.predict(FRAMES[:3])
    if suffix == ".npz":
        with np.load(target) as found:
            np.testing.assert_allclose(found["stress"][:3], expected["stress"], atol=1e-7)
            np.testing.assert_allclose(found["cell"][2], FRAMES[2].cell.array)
            assert np.isnan(found["energy"][3]) and found["pbc"].tolist()[:2] == [[True] * 3, [False] * 3]
        return
    found = ase.io.read(target, ":")
    for i in (0, 2):
        np.testing.assert_allclose(found[i].get_stress(voigt=False), expected["stress"][i], atol=1e-7)
        np.testing.assert_allclose(found[i].cell.array, FRAMES[i].cell.array, atol=1e-7)
    assert "stress" not in found[1].calc.results and not found[1].pbc.any()
    assert "closer than 0.3 Ang" in found[3].info["error"]
