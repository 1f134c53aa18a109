"""QM9's raw xyz format (Ramakrishnan et al., Sci. Data 1, 140022, 2014)."""

from __future__ import annotations

from typing import Any

import numpy as np

from dimenet_tf.errors import UserError
from dimenet_tf.structures.elements import atomic_number

HARTREE = 27.211386246  # eV

# columns of the second line after "gdb N": A, B, C in GHz, then
PROPERTIES = ("mu", "alpha", "homo", "lumo", "gap", "r2", "zpve", "U0", "U", "H", "G", "Cv")
IN_HARTREE = ("homo", "lumo", "gap", "zpve", "U0", "U", "H", "G")

# energies of the free atoms in Hartree, from QM9's atomref.txt
ATOM_ENERGIES = {
    "U0": {1: -0.500273, 6: -37.846772, 7: -54.583861, 8: -75.064579, 9: -99.718730},
    "U": {1: -0.498857, 6: -37.845355, 7: -54.582445, 8: -75.063163, 9: -99.717314},
    "H": {1: -0.497912, 6: -37.844411, 7: -54.581501, 8: -75.062219, 9: -99.716370},
    "G": {1: -0.510927, 6: -37.861317, 7: -54.598897, 8: -75.079532, 9: -99.733544},
}


def is_raw(line: bytes) -> bool:
    """Tell whether the second line of an xyz file is that of QM9's raw format: `gdb N` and 15 numbers."""
    return line.startswith(b"gdb") and line[3:4].isspace()


def parse_xyz(text: str, source: str) -> dict:
    """Read a raw xyz file of QM9; see the columns at the top of this module."""
    try:
        lines = text.replace("*^", "e").splitlines()
        count = int(lines[0])
        tag, number, *values = lines[1].split()
        if tag != "gdb" or len(values) != 3 + len(PROPERTIES):
            raise ValueError(f"expected 'gdb N' and {3 + len(PROPERTIES)} numbers in the second line")
        molecule: dict[str, Any] = {"id": int(number), **dict(zip(PROPERTIES, map(float, values[3:])))}
        atoms = [line.split() for line in lines[2 : 2 + count]]
        if len(atoms) != count or any(len(atom) < 4 for atom in atoms):
            raise ValueError(f"expected {count} lines of atoms with a symbol and three coordinates")
        molecule["Z"] = np.array([atomic_number(atom[0], source) for atom in atoms])
        molecule["R"] = np.array([[float(x) for x in atom[1:4]] for atom in atoms])
    except (ValueError, IndexError) as error:
        raise UserError(f"{source}: {error}") from None
    for key, references in ATOM_ENERGIES.items():
        molecule[key] -= sum(references[z] for z in molecule["Z"])
    return {key: value * HARTREE if key in IN_HARTREE else value for key, value in molecule.items()}
