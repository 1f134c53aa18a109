"""The embedded boxes of liquid water: cells, labels and the recipe that trains on them."""

import numpy as np

from dimenet_tf.commands.recipes import read_recipe
from dimenet_tf.config.schema import resolve
from dimenet_tf.data import Checks, DataConfig, load_dataset, water_xtb
from helpers.paths import ROOT


def test_boxes_and_labels():
    data = water_xtb(Checks(targets=["energy", "forces", "stress"]))
    assert data.cells.pbc.all() and set(data.formulas()) == {"H64O32"} and len(data.dropped) == 0
    density = 32 * 29.915 / np.linalg.det(data.cells.cell)
    assert density.min() < 0.95 and density.max() > 1.2  # g/cm3
    assert (np.abs(np.tril(data.cells.cell, -1)).max(axis=(1, 2)) > 0.1).sum() > len(data) / 4  # sheared cells
    # forces of a box add up to zero, and the stress is symmetric
    boxes = np.repeat(np.arange(len(data)), data.N)
    net = np.stack([np.bincount(boxes, forces) for forces in data.target("forces").T])
    np.testing.assert_allclose(net, 0, atol=96 * 2**-14)  # eV/Ang, where components are multiples of 2^-13
    stress = data.target("stress")
    np.testing.assert_array_equal(stress, np.swapaxes(stress, 1, 2))


def test_the_recipe_trains_on_energies_forces_and_stresses():
    config = resolve(read_recipe(ROOT / "configs/water_xtb.yaml"))
    dataset = load_dataset(DataConfig(**config["data"]))
    assert dataset.energy == "energy" and dataset.has_forces and dataset.has_stress
    assert config["model"]["name"] == "painn"
