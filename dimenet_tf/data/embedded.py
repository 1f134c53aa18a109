"""Data sets included in the library; their descriptions are in `sample/`."""

from __future__ import annotations

from pathlib import Path

from dimenet_tf.data.oc20 import own_split
from dimenet_tf.structures.checks import STRICT, Checks
from dimenet_tf.structures.container import DataContainer
from dimenet_tf.structures.readers import read_file

FOLDER = Path(__file__).parent / "sample"


def sample(checks: Checks = STRICT) -> DataContainer:
    """Read the embedded sample of 2000 small molecules.

    Examples
    --------
    >>> from dimenet_tf.data import sample
    >>> sample()
    DataContainer(embedded sample: 2000 molecules; H, C, N, O, F; mu, alpha, homo, lumo, gap, zpve, U0, U, H, G, Cv)
    """
    data = read_file(FOLDER / "sample.npz", units={"R": "Ang"}, checks=checks)
    data.source = "embedded sample"
    return data


def ethanol_xtb(checks: Checks = STRICT) -> DataContainer:
    """Read the embedded trajectory: ethanol at 500 K with energies, forces, dipole moments and polarizabilities.

    Examples
    --------
    >>> from dimenet_tf.data import ethanol_xtb
    >>> sorted(ethanol_xtb().targets)
    ['dipole', 'energy', 'forces', 'polarizability', 'trajectory']
    """
    data = read_file(FOLDER / "ethanol_xtb.npz", units={"R": "Ang"}, checks=checks)
    data.source = "embedded trajectory of ethanol"
    return data


def water_xtb(checks: Checks = STRICT) -> DataContainer:
    """Read the embedded liquid: boxes of 32 water molecules with energies, forces and stresses by GFN1-xTB.

    Examples
    --------
    >>> from dimenet_tf.data import water_xtb
    >>> boxes = water_xtb()
    >>> boxes[0].get_chemical_formula(), sorted(boxes.targets)
    ('H64O32', ['energy', 'forces', 'part', 'stress'])
    """
    data = read_file(FOLDER / "water_xtb.npz", units={"R": "Ang", "stress": "eV/Ang^3"}, checks=checks)
    data.source = "embedded liquid water"
    return data


def oc20_sample(checks: Checks = STRICT) -> DataContainer:
    """Read the embedded slabs with adsorbates: OC20's task IS2RE in small, with energies of ASE's EMT potential.

    Examples
    --------
    >>> from dimenet_tf.data import oc20_sample
    >>> slabs = oc20_sample()
    >>> len(slabs), slabs.split
    (320, Split(200 train, 30 valid, 90 test))
    """
    data = read_file(FOLDER / "oc20_sample.npz", units={"R": "Ang"}, checks=checks)
    data.source, data.split = "embedded slabs", own_split(data.id)
    return data
