"""Make the embedded slabs with adsorbates: OC20's task IS2RE in small, with energies of ASE's EMT potential.

    python tools/make_oc20_sample.py                    # writes dimenet_tf/data/sample/oc20_sample.npz

Slabs of 2 x 2 x 2 and 2 x 2 x 3 atoms (111, 100 and 110 surfaces of fcc metals and their alloys) with one adsorbate at
a random site. The lowest layer is fixed, and the rest is relaxed by BFGS. The label is the energy of the relaxed
structure minus those of the relaxed bare slab and of the relaxed adsorbate alone. Structures are the initial ones. As
in OC20, the four validation splits have known adsorbates on known metals and alloys (val_id), unknown adsorbates
(val_ood_ads), unknown alloys of known metals (val_ood_cat), and both (val_ood_both).
"""

from __future__ import annotations

import argparse
import functools
import importlib.metadata
import itertools
import time
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.build import fcc100, fcc110, fcc111, molecule
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms
from ase.geometry import get_distances
from ase.optimize import BFGS

LATTICE = {"Al": 3.99, "Ni": 3.49, "Cu": 3.59, "Pd": 3.88, "Ag": 4.06, "Pt": 3.92, "Au": 4.06}  # Angstrom, EMT's
SURFACES = (fcc111, fcc100, fcc110)
ADSORBATES = (["H", "C", "N", "O", "CO"], ["OH", "NH", "CH"])  # known, unknown
ALLOYS = list(itertools.combinations(LATTICE, 2))
UNKNOWN_ALLOYS = [("Al", "Cu"), ("Ni", "Pd"), ("Cu", "Au"), ("Pd", "Pt"), ("Ag", "Pt"), ("Ni", "Ag")]
SPLITS = {  # number of structures, whether adsorbates and alloys are unknown
    "train": (200, False, False),
    "val_id": (30, False, False),
    "val_ood_ads": (30, True, False),
    "val_ood_cat": (30, False, True),
    "val_ood_both": (30, True, True),
}
VACUUM = 6.0  # Angstrom above and below the slab
FMAX, STEPS = 0.05, 200  # eV/Angstrom; of a relaxation
DESORBED = 3.0  # Angstrom: an adsorbate that is farther from the slab has left it


def bare_slab(rng: np.random.RandomState, unknown: bool) -> Atoms:
    """Return a slab before its relaxation."""
    pure = [(metal, metal) for metal in LATTICE]
    known = [*pure, *(pair for pair in ALLOYS if pair not in UNKNOWN_ALLOYS)]
    metals = UNKNOWN_ALLOYS if unknown else known
    first, second = metals[rng.randint(len(metals))]
    share = rng.choice([0.25, 0.5, 0.75])
    lattice = (1 - share) * LATTICE[first] + share * LATTICE[second]
    make = SURFACES[rng.randint(len(SURFACES))]
    slab = make(first, (2, 2, rng.randint(2, 4)), a=lattice, vacuum=VACUUM, periodic=True)
    replaced = rng.permutation(len(slab))[: round(share * len(slab))]
    slab.symbols[replaced] = second
    slab.set_constraint(FixAtoms(mask=slab.get_tags() == slab.get_tags().max()))
    return slab


def with_adsorbate(rng: np.random.RandomState, slab: Atoms, name: str) -> Atoms:
    """Return a slab with an adsorbate above a random place of the surface, in a random orientation."""
    adsorbate = molecule(name)
    adsorbate.rotate(rng.uniform(0, 360), "z")
    adsorbate.rotate(rng.uniform(0, 60), "x")
    lateral = rng.rand(2) @ slab.cell.array[:2]
    adsorbate.translate(lateral - adsorbate.positions[0])
    top = slab.positions[:, 2].max()
    adsorbate.translate([0, 0, top + rng.uniform(1.4, 1.9) - adsorbate.positions[:, 2].min()])
    both = slab + adsorbate
    both.set_constraint(slab.constraints)
    both.positions += np.where(both.get_tags()[:, None] == slab.get_tags().max(), 0, 0.03) * rng.randn(len(both), 3)
    both.positions = both.positions.astype(np.float32)
    return both


def relax(atoms: Atoms) -> float | None:
    """Relax atoms in place and return their energy; None if that does not converge."""
    atoms.calc = EMT()
    done = BFGS(atoms, logfile=None).run(fmax=FMAX, steps=STEPS)
    return float(atoms.get_potential_energy()) if done else None


@functools.lru_cache(None)
def energy_alone(name: str) -> float:
    """Return the energy of a relaxed adsorbate without a slab."""
    atoms = molecule(name)
    energy = relax(atoms)
    assert energy is not None, name
    return energy


def structure(rng: np.random.RandomState, unknown_adsorbate: bool, unknown_alloy: bool) -> dict | None:
    """Return a structure with its label; None if a relaxation fails or the adsorbate leaves the slab."""
    slab = bare_slab(rng, unknown_alloy)
    names = ADSORBATES[unknown_adsorbate]
    name = names[rng.randint(len(names))]
    start = with_adsorbate(rng, slab, name)
    whole, alone = start.copy(), slab.copy()
    energy, reference = relax(whole), relax(alone)
    if energy is None or reference is None:
        return None
    distance = get_distances(whole.positions[len(slab) :], whole.positions[: len(slab)], whole.cell, whole.pbc)[1]
    if distance.min(axis=1).max() > DESORBED:
        return None
    depth = np.array([*slab.get_tags(), *[0] * (len(start) - len(slab))])  # 1 at the surface, 0 of the adsorbate
    fixed = depth == slab.get_tags().max()
    return {
        "N": len(start),
        "Z": start.numbers.astype(np.int8),
        "R": start.positions.astype(np.float32),
        "cell": start.cell.array.astype(np.float32),
        "pbc": np.ones(3, bool),
        "fixed": fixed,
        "tags": np.select([depth == 0, depth == 1], [2, 1], 0).astype(np.int8),
        "energy": energy - reference - energy_alone(name),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--output", type=Path, default=Path("dimenet_tf/data/sample/oc20_sample.npz"))
    args = parser.parse_args()
    rng, rows, rejected, start = np.random.RandomState(args.seed), [], 0, time.time()
    for split, (count, unknown_adsorbate, unknown_alloy) in SPLITS.items():
        number = 0
        while number < count:
            found = structure(rng, unknown_adsorbate, unknown_alloy)
            if found is None:
                rejected += 1
                continue
            rows.append({**found, "id": f"{split}/{number}"})
            number += 1
        of_split = np.array([row["energy"] for row in rows[-count:]])
        print(f"{split}: {count}, mean {of_split.mean():.3f} eV, std {of_split.std():.3f} eV")
    flat = ("Z", "R", "fixed", "tags")
    arrays = {key: (np.concatenate if key in flat else np.array)([row[key] for row in rows]) for key in rows[0]}
    np.savez_compressed(args.output, **arrays)
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("ase", "numpy"))
    print(f"{args.output}: {args.output.stat().st_size} bytes, {rejected} rejected, {time.time() - start:.0f} s")
    print(versions)


if __name__ == "__main__":
    main()
