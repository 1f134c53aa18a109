"""Make the embedded sample: small organic molecules relaxed and labelled with GFN2-xTB.

    pip install -e .[sample]
    python tools/make_sample_data.py                     # writes dimenet_tf/data/sample/sample.npz

1. `propose` grows random molecular graphs of up to nine heavy atoms C, N, O, F (RDKit, seeded).
2. `label` embeds each graph (ETKDG, MMFF94), relaxes it with GFN2-xTB (tblite) and computes its properties.
   A molecule is rejected if the relaxation breaks or makes a bond, or if a vibration is imaginary or softer
   than 20 cm-1 (its harmonic entropy would mean nothing).
3. The first `--count` accepted molecules, in the order of proposal, are written.

Finished molecules are appended to a journal at once; an interrupted run resumes where it stopped.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"  # one molecule per process; must stand before tblite is imported

import argparse
import importlib.metadata
import json
import multiprocessing
import random
from collections import Counter
from pathlib import Path

import numpy as np
from ase import Atoms, units
from ase.optimize import BFGS
from ase.thermochemistry import IdealGasThermo
from ase.vibrations import VibrationsData
from rdkit import Chem, RDLogger
from rdkit.Chem import AllChem
from tblite.ase import TBLite
from tblite.interface import Calculator
from tblite.library import ffi
from tqdm import tqdm

METHOD = "GFN2-xTB"
ACCURACY = 0.01  # of the self-consistency, in tblite's scale (1 is its default, smaller is tighter)
TEMPERATURE, PRESSURE = 298.15, 101325.0  # K, Pa: QM9's conditions
MAX_FORCE = 0.001  # eV/A, of the relaxation
DISPLACEMENT = 0.005  # A, for the Hessian
FIELD = 0.001  # atomic units, for the polarizability
SOFTEST_MODE = 20.0  # cm-1
UNPAIRED = {1: 1, 6: 2, 7: 3, 8: 2, 9: 1}  # electrons, of the free atoms' ground states
TARGETS = ("mu", "alpha", "homo", "lumo", "gap", "zpve", "U0", "U", "H", "G", "Cv")

SMALLEST = (
    "C N O F C#C C=C CC CO C=O C#N CN CF O=C=O CCO COC CC=O C1CC1 C1CO1 C1CN1 CC#C CC#N NC=O OC=O C=C=C CC=C CCC FCF"
).split()
SEEDS = (
    "C C C C N O CC CCC CCO CC=O C=C C#C C#N C1CC1 C1CCC1 C1CCCC1 C1CO1 C1CCOC1 C1CCNC1 C1CCCCC1 C1=CCCC1 "
    "c1ccccc1 c1ccncc1 c1ccoc1 c1cc[nH]c1 c1cnc[nH]1 c1cnco1 c1ncncn1 CC(=O)O CC(N)=O NC(N)=O"
).split()
UNLIKELY = [  # groups that fall apart, or that GFN2-xTB was not made for
    Chem.MolFromSmarts(group)
    for group in (
        "[#8]~[#8] [#7,#8]~[F] [#7]~[#7]~[#7] [#7]~[#7]~[#8] [#8]~[#7]~[#8] [#7]=[#7] [NX3][OX2] C(F)(F)(F)F "
        "[r3]=,#* [r4]=,#[r4] [r]#* *=[r]=* *=*=*=* [CX2;!$(C#*);!$(*=*=*)] C([OH])([OH])"
    ).split()
]


def propose(count: int, seed: int) -> list[str]:
    """Return `count` different canonical SMILES: a fixed list of the smallest molecules, then random growth."""
    rng = random.Random(seed)
    found = {Chem.CanonSmiles(s): None for s in SMALLEST}
    while len(found) < count:
        size = rng.choices(range(3, 10), weights=(1, 2, 4, 7, 11, 15, 18))[0]
        smiles = grow(rng, size)
        if smiles is not None:
            found.setdefault(smiles)
    return list(found)[:count]


def grow(rng: random.Random, size: int) -> str | None:
    """Grow one molecule of `size` heavy atoms from a random seed graph; None where the result is not a molecule."""
    molecule = Chem.RWMol(Chem.MolFromSmiles(rng.choice(SEEDS)))
    Chem.Kekulize(molecule, clearAromaticFlags=True)
    while molecule.GetNumAtoms() < size:
        molecule.UpdatePropertyCache(strict=False)
        open_atoms = [a.GetIdx() for a in molecule.GetAtoms() if a.GetTotalNumHs() > 0]
        if not open_atoms:
            return None
        new = molecule.AddAtom(Chem.Atom(rng.choices((6, 7, 8, 9), weights=(62, 17, 16, 5))[0]))
        order = rng.choices((Chem.BondType.SINGLE, Chem.BondType.DOUBLE, Chem.BondType.TRIPLE), weights=(80, 15, 5))[0]
        molecule.AddBond(rng.choice(open_atoms), new, order)
    if rng.random() < 0.2:  # close a ring
        distance = Chem.GetDistanceMatrix(molecule)
        pairs = np.argwhere(np.triu((distance >= 2) & (distance <= 5)))
        if len(pairs):
            molecule.AddBond(*map(int, rng.choice(list(pairs))), Chem.BondType.SINGLE)
    molecule = molecule.GetMol()
    if Chem.SanitizeMol(molecule, catchErrors=True) != Chem.SanitizeFlags.SANITIZE_NONE:
        return None
    if any(molecule.HasSubstructMatch(group) for group in UNLIKELY):
        return None
    return Chem.MolToSmiles(molecule)


def label(task: tuple[int, str]) -> dict:
    """Relax one molecule and compute its properties; the answer holds `rejected` (a reason) where that fails."""
    index, smiles = task
    record = {"index": index, "smiles": smiles}
    try:
        molecule = Chem.AddHs(Chem.MolFromSmiles(smiles))
        if AllChem.EmbedMolecule(molecule, randomSeed=index + 1) != 0:
            return {**record, "rejected": "no three-dimensional embedding"}
        AllChem.MMFFOptimizeMolecule(molecule, maxIters=500)
        atoms = Atoms([a.GetAtomicNum() for a in molecule.GetAtoms()], molecule.GetConformer().GetPositions())
        atoms.calc = TBLite(method=METHOD, accuracy=ACCURACY, verbosity=0)
        if not BFGS(atoms, logfile=None).run(fmax=MAX_FORCE, steps=500):
            return {**record, "rejected": "relaxation did not converge"}
        bonds = {frozenset((b.GetBeginAtomIdx(), b.GetEndAtomIdx())) for b in molecule.GetBonds()}
        if bonds_of(atoms) != bonds:
            return {**record, "rejected": "bonds changed during the relaxation"}
        atoms.positions -= atoms.positions.mean(axis=0)
        atoms.positions = atoms.positions.astype(np.float32)  # the labels belong to the stored numbers
        vibrations = vibrational_energies(atoms)
        if vibrations.min(initial=np.inf) < SOFTEST_MODE * units.invcm:
            return {**record, "rejected": f"a vibration is imaginary or softer than {SOFTEST_MODE} cm-1"}
    except (RuntimeError, ValueError) as error:  # tblite, RDKit: no convergence for this molecule
        return {**record, "rejected": str(error)}
    return {**record, "Z": atoms.numbers.tolist(), "R": atoms.positions.tolist(), **properties(atoms, vibrations)}


def bonds_of(atoms: Atoms) -> set[frozenset[int]]:
    """Pairs of atoms closer than 1.25 times the sum of their covalent radii."""
    from ase.data import covalent_radii

    radius = covalent_radii[atoms.numbers]
    close = atoms.get_all_distances() < 1.25 * (radius[:, None] + radius)
    return {frozenset(pair) for pair in np.argwhere(np.triu(close, 1)).tolist()}


def is_linear(atoms: Atoms) -> bool:
    moments = atoms.get_moments_of_inertia()
    return moments[0] < 1e-3 * moments[1]


def vibrational_energies(atoms: Atoms) -> np.ndarray:
    """Harmonic quanta in eV, ascending; imaginary ones negative. Central differences of the forces."""
    n = len(atoms)
    displaced = atoms.copy()
    displaced.calc = atoms.calc
    hessian = np.empty((n, 3, n, 3))
    for i in range(n):
        for axis in range(3):
            forces = []
            for sign in (1, -1):
                displaced.positions[:] = atoms.positions
                displaced.positions[i, axis] += sign * DISPLACEMENT
                forces.append(displaced.get_forces())
            hessian[i, axis] = (forces[1] - forces[0]) / (2 * DISPLACEMENT)
    hessian = hessian.reshape(3 * n, 3 * n)
    energies = VibrationsData.from_2d(atoms, (hessian + hessian.T) / 2).get_energies()
    energies = np.sort(np.where(energies.imag > 0, -energies.imag, energies.real))
    # translations and rotations are the quanta nearest to zero
    rigid = np.argsort(np.abs(energies))[: 5 if is_linear(atoms) else 6]
    return np.delete(energies, rigid)


def thermochemistry(atoms: Atoms, vibrations: np.ndarray, potential: float, spin: float) -> dict[str, float]:
    """Rigid rotor, harmonic oscillator, symmetry number 1. Energies in eV, Cv in cal/mol/K."""
    geometry = "monatomic" if len(atoms) == 1 else "linear" if is_linear(atoms) else "nonlinear"
    gas = IdealGasThermo(vibrations, geometry, potential, atoms, symmetrynumber=1, spin=spin)
    x = vibrations / (units.kB * TEMPERATURE)
    oscillators = (x**2 * np.exp(-x) / np.expm1(-x) ** 2).sum()
    classical = {"monatomic": 1.5, "linear": 2.5, "nonlinear": 3.0}[geometry]
    return {
        "zpve": float(vibrations.sum() / 2),
        "U0": float(potential + vibrations.sum() / 2),
        "U": gas.get_internal_energy(TEMPERATURE, verbose=False),
        "H": gas.get_enthalpy(TEMPERATURE, verbose=False),
        "G": gas.get_gibbs_energy(TEMPERATURE, PRESSURE, verbose=False),
        "Cv": float((classical + oscillators) * units.kB / (units.kcal / units.mol) * 1000),
    }


def singlepoint(numbers: np.ndarray, positions: np.ndarray, uhf: int = 0, field: np.ndarray | None = None):
    """One GFN2-xTB calculation, in atomic units, with an optional homogeneous electric field."""
    calculator = Calculator(METHOD, numbers, positions / units.Bohr, uhf=uhf)
    calculator.set("verbosity", 0)
    calculator.set("accuracy", ACCURACY)
    if field is not None:
        calculator.add("electric-field", ffi.from_buffer("double[]", field))  # tblite 0.8 takes no NumPy array here
    return calculator.singlepoint()


def free_atom(number: int) -> dict[str, float]:
    atom = Atoms([number], [(0.0, 0.0, 0.0)])
    energy = singlepoint(atom.numbers, atom.positions, uhf=UNPAIRED[number])["energy"] * units.Hartree
    return thermochemistry(atom, np.empty(0), energy, spin=UNPAIRED[number] / 2)


def properties(atoms: Atoms, vibrations: np.ndarray) -> dict[str, float]:
    """QM9's properties in QM9's units (energies in eV; U0, U, H, G as atomization energies)."""
    result = singlepoint(atoms.numbers, atoms.positions)
    orbitals, occupied = result["orbital-energies"] * units.Hartree, result["orbital-occupations"] > 1.0
    thermal = thermochemistry(atoms, vibrations, result["energy"] * units.Hartree, spin=0)
    references = {int(z): free_atom(z) for z in set(atoms.numbers)}
    for key in ("U0", "U", "H", "G"):
        thermal[key] -= sum(references[z][key] for z in atoms.numbers)
    polarizability = 0.0
    for axis in np.eye(3):
        dipoles = [singlepoint(atoms.numbers, atoms.positions, field=s * FIELD * axis)["dipole"] for s in (1, -1)]
        polarizability += (dipoles[0] - dipoles[1]) @ axis / (2 * FIELD) / 3
    return {
        "mu": float(np.linalg.norm(result["dipole"]) * units.Bohr / units.Debye),
        "alpha": float(polarizability),
        "homo": float(orbitals[occupied].max()),
        "lumo": float(orbitals[~occupied].min()),
        "gap": float(orbitals[~occupied].min() - orbitals[occupied].max()),
        **thermal,
    }


def read_journal(path: Path) -> dict[int, dict]:
    """Finished molecules by index. A last line cut by an interruption is dropped and computed again."""
    if not path.exists():
        return {}
    text = path.read_text()
    whole = text[: text.rfind("\n") + 1]
    path.write_text(whole)
    return {record["index"]: record for record in map(json.loads, whole.splitlines())}


README = """# The embedded sample

This data set contains {count} small organic molecules, relaxed and labelled with {method}. This project made it
with `python tools/make_sample_data.py --count {count} --seed {seed}`, whose docstring describes the method. It
contains no data of others.

With these versions, the tool repeats the file exactly on the machine that made it: {versions}. On another
processor, relaxations may end elsewhere within their tolerance ({force} eV/A). For 37 molecules that started
1e-6 A away, distances agreed with the file's within 0.01 A, energies within 1e-3 eV, mu within 1e-3 D, alpha
within 0.01 a0^3 and Cv within 0.01 cal/mol/K. Use these as tolerances for a comparison. Another version of
RDKit may propose other molecules.

The labels are semi-empirical and meant for tests and teaching, not for research. {method} has a minimal basis,
so its polarizabilities are far too small. Thermochemistry assumes a rigid rotor, a harmonic oscillator,
symmetry number 1, {temperature} K and {pressure} Pa. U0, U, H and G are differences to free atoms in their
ground states.

`sample.npz` contains no pickled data. Its arrays are `id`, `N` atoms per molecule, `Z` [sum N], `R` [sum N, 3]
in Angstrom, `smiles` and

{statistics}

Atoms per molecule: {smallest} to {largest}, mean {mean:.1f}. Molecules that contain: {elements}.

{total} of {proposals} proposed molecules were rejected:

{rejected}
"""


def describe(args: argparse.Namespace, sample: list[dict], rejected: Counter) -> str:
    """Return the README of the sample."""
    from dimenet_tf.structures.quantities import PROPERTIES

    packages = ("rdkit", "tblite", "ase", "numpy")
    lines = ["| key | unit | mean | std | min | max | |", "| --- | --- | --- | --- | --- | --- | --- |"]
    for key in TARGETS:
        v = np.array([r[key] for r in sample])
        kind = PROPERTIES[key]
        numbers = " | ".join(f"{x:.3f}" for x in (v.mean(), v.std(), v.min(), v.max()))
        lines.append(f"| {key} | {kind.unit} | {numbers} | {kind.description} |")
    sizes = [len(r["Z"]) for r in sample]
    with_element = Counter(z for r in sample for z in set(r["Z"]))
    symbols = {1: "H", 6: "C", 7: "N", 8: "O", 9: "F"}
    return README.format(
        count=args.count,
        seed=args.seed,
        method=METHOD,
        force=MAX_FORCE,
        temperature=TEMPERATURE,
        pressure=PRESSURE,
        versions=", ".join(f"{p} {importlib.metadata.version(p)}" for p in packages),
        statistics="\n".join(lines),
        smallest=min(sizes),
        largest=max(sizes),
        mean=np.mean(sizes),
        elements=", ".join(f"{symbols[z]} {n}" for z, n in sorted(with_element.items())),
        total=rejected.total(),
        proposals=rejected.total() + len(sample),
        rejected="\n".join(f"* {n}: {reason}" for reason, n in rejected.most_common()),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=2000, help="molecules in the sample")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    parser.add_argument("--journal", type=Path, default=Path("build/sample.jsonl"))
    parser.add_argument("--output", type=Path, default=Path("dimenet_tf/data/sample/sample.npz"))
    args = parser.parse_args()
    RDLogger.DisableLog("rdApp.*")

    proposals = propose(2 * args.count, args.seed)
    args.journal.parent.mkdir(parents=True, exist_ok=True)
    records = read_journal(args.journal)
    for index, record in records.items():
        if proposals[index] != record["smiles"]:
            raise SystemExit(f"{args.journal} belongs to another seed or RDKit: remove it to start again")

    def accepted() -> list[dict]:
        """The first `count` accepted molecules of the gapless beginning of the journal."""
        done = []
        for index in range(len(proposals)):
            if index not in records or len(done) == args.count:
                break
            if "rejected" not in records[index]:
                done.append(records[index])
        return done

    missing = [(i, s) for i, s in enumerate(proposals) if i not in records]
    with multiprocessing.Pool(args.processes) as pool, args.journal.open("a") as journal:
        bar = tqdm(total=args.count, initial=len(accepted()), unit="molecule")
        if len(accepted()) < args.count:
            for record in pool.imap(label, missing):
                records[record["index"]] = record
                journal.write(json.dumps(record) + "\n")
                journal.flush()
                bar.update("rejected" not in record)
                if bar.n >= args.count and len(accepted()) == args.count:
                    break
        pool.terminate()
    sample = accepted()
    if len(sample) < args.count:
        raise SystemExit(f"only {len(sample)} of {len(proposals)} proposals were accepted: propose more")
    args.output.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(
        args.output,
        id=np.arange(1, args.count + 1, dtype=np.int32),
        N=np.array([len(r["Z"]) for r in sample], np.int32),
        Z=np.concatenate([r["Z"] for r in sample]).astype(np.uint8),
        R=np.concatenate([r["R"] for r in sample]).astype(np.float32),
        smiles=np.array([r["smiles"] for r in sample]),
        **{key: np.array([r[key] for r in sample], np.float64) for key in TARGETS},
    )
    rejected = Counter(r["rejected"] for r in records.values() if "rejected" in r)
    args.output.with_name("README.md").write_text(describe(args, sample, rejected))
    print(f"{args.output}: {len(sample)} molecules, {rejected.total()} of {len(records)} proposals rejected")


if __name__ == "__main__":
    main()
