"""Pairs of structures that distances, angles, torsions and directions can tell apart, or not."""

import numpy as np
import pytest
import tensorflow as tf
from ase import Atoms

from dimenet_tf.models import build_model
from helpers.models import SMALL, graph_of, randomize


def ring(atoms: int, side: float, height: float = 0.0) -> np.ndarray:
    angles = 2 * np.pi * np.arange(atoms) / atoms
    radius = side / (2 * np.sin(np.pi / atoms))
    return np.stack([radius * np.cos(angles), radius * np.sin(angles), np.full(atoms, height)], axis=1)


def chain(symbols: str, bonds: tuple[float, float, float], angle: float, dihedral: float) -> Atoms:
    """Four atoms in a row; angles in degrees."""
    angle, dihedral = np.radians([angle, dihedral])
    second, third = np.zeros(3), np.array([bonds[1], 0, 0])
    first = second + bonds[0] * np.array([np.cos(angle), np.sin(angle), 0])
    turned = np.sin(angle) * np.array([0, np.cos(dihedral), np.sin(dihedral)])
    fourth = third + bonds[2] * (np.array([-np.cos(angle), 0, 0]) + turned)
    return Atoms(symbols, positions=[first, second, third, fourth])


HAND = Atoms("COHCN", positions=[[0, 0, 0], [1.1, 1.1, 1], [-0.9, -0.85, 1.1], [-1.1, 0.9, -0.9], [0.9, -1, -1.1]])
MIRRORED = Atoms(HAND.symbols, positions=HAND.positions * [-1, 1, 1])
PAIRS = {
    # two structures, and a cutoff that makes neighbors of bonded atoms alone, except where it is said
    "hexagon, two triangles": (  # DimeNet, Fig. 6
        Atoms("C6", positions=ring(6, 2.0)),
        Atoms("C6", positions=np.concatenate([ring(3, 2.0), ring(3, 2.0, height=20.0)])),
        2.5,
    ),
    "cis, trans": (chain("C4", (2.0,) * 3, 110, 0), chain("C4", (2.0,) * 3, 110, 180), 2.5),  # PaiNN, Fig. 1
    # hydrogen peroxide, each hydrogen a neighbor of both oxygens
    "dihedral": (chain("HOOH", (0.97, 1.45, 0.97), 95, 110), chain("HOOH", (0.97, 1.45, 0.97), 95, 150), 2.0),
    "mirror image": (HAND, MIRRORED, 5.0),
}
MODELS = {
    # model, hyperparameters, pairs that it tells apart
    "SchNet": ("schnet", {}, ()),
    "DimeNet": ("dimenet", {}, ("hexagon, two triangles", "dihedral")),
    "DimeNet without angles": ("dimenet", {"num_spherical": 1}, ()),
    "DimeNet++": ("dimenet_pp", {}, ("hexagon, two triangles", "dihedral")),
    "DimeNet++ without angles": ("dimenet_pp", {"num_spherical": 1}, ()),
    "GemNet-T": ("gemnet", {"triplets_only": True}, ("hexagon, two triangles", "dihedral")),
    "GemNet-Q": ("gemnet", {}, ("hexagon, two triangles", "cis, trans", "dihedral")),
    "SphereNet, published torsion": (
        "spherenet",
        {"conventions": "corrected", "torsion": "published"},
        ("hexagon, two triangles", "dihedral", "mirror image"),
    ),
    "SphereNet, smooth torsion": (
        "spherenet",
        {"conventions": "corrected", "torsion": "smooth"},
        ("hexagon, two triangles", "dihedral"),
    ),
    "DPGN, published torsion": (
        "dpgn",
        {"torsion": "published"},
        ("hexagon, two triangles", "dihedral", "mirror image"),
    ),
    "DPGN, smooth torsion": ("dpgn", {"torsion": "smooth"}, ("hexagon, two triangles", "dihedral")),
    "PaiNN": ("painn", {}, ("hexagon, two triangles", "cis, trans", "dihedral")),
    "PaiNN without vectors": ("painn", {"vectors": False}, ()),
}


def difference(name: str, hyperparameters: dict, pair: str) -> float:
    """Relative difference of the two outputs of an untrained model, whose energies are about 1."""
    first, second, cutoff = PAIRS[pair]
    far = {"gemnet": {"int_cutoff": cutoff}, "dpgn": {"global_cutoff": 1.0001 * cutoff}}.get(name, {})
    model = build_model(
        name, dtype="float64", **{**SMALL[name], "num_blocks": 3, "cutoff": cutoff, **far, **hyperparameters}
    )
    model.make_weights()
    randomize(model)
    outputs = [
        tf.reduce_sum(model(graph_of(np.array([len(a)]), a.numbers, a.positions, model)).scalars).numpy()
        for a in (first, second)
    ]
    return abs(outputs[0] - outputs[1]) / abs(outputs[0])


@pytest.mark.parametrize("name", MODELS)
def test_pairs_of_structures(name):
    model, hyperparameters, told_apart = MODELS[name]
    for pair in PAIRS:
        found = difference(model, hyperparameters, pair)
        # equal up to rounding: the hydrogen atoms of the two peroxides are farther apart than the cutoff
        assert found > 1e-9 if pair in told_apart else found < 1e-12, (pair, found)
