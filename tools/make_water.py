"""Make the embedded liquid: boxes of 32 water molecules in periodic cells, labelled with GFN1-xTB.

    pip install -e .[sample]
    python tools/make_water.py                          # writes dimenet_tf/data/sample/water_xtb.npz

Each box has a density from 0.85 to 1.25 g/cm3 and a temperature from 300 to 450 K. Every second box has sheared cells.

1. Langevin dynamics of a flexible TIP3P water melts a disturbed grid of molecules (1 ps) and yields a frame every
   0.15 ps. Its atoms are disturbed by a random 0.01 to 0.05 Angstrom.
2. From the last frame, Langevin dynamics with GFN1-xTB (hydrogen of 8 u, which allows steps of 1.5 fs) yields a frame
   every two steps.

3. Disturbed grids, not melted, have contacts between molecules down to 0.8 Angstrom (H-H). Liquids have none, and a
   model that has never seen one may let hydrogens of two molecules fall together.

`--frames FILE` adds the structures of a file, for example of a model's own dynamics, and labels them. Finished parts
stay in `--parts`; an interrupted run continues there.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"  # one box per process; must stand before tblite is imported

import argparse
import importlib.metadata
import multiprocessing
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import ase.io
import numpy as np
from ase import Atoms, units
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.mixing import SumCalculator
from ase.calculators.tip3p import TIP3P
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution
from scipy.spatial.transform import Rotation
from tblite.ase import TBLite
from tqdm import tqdm

METHOD = "GFN1-xTB"
# tblite has no k-points. Against supercells, 32 molecules are off by 0.1 meV/atom for a doubled axis, 16 by 1, 8 by 6.
MOLECULES = 32
DENSITIES = (0.85, 1.25)  # g/cm3
TEMPERATURES = (300.0, 450.0)  # K
STRAIN = 0.06  # largest off-diagonal and anisotropic elements of a sheared box's strain
DISTURBANCE = (0.01, 0.05)  # Angstrom
VOLUME = 29.915  # Angstrom^3 per molecule at 1 g/cm3
FRAMES, EQUILIBRATION, STRIDE = 12, 1000, 150  # of TIP3P; steps of 1 fs
STEPS, XTB_STRIDE, HEAVY = 40, 2, 8.0  # of GFN1-xTB; steps of 1.5 fs; u
GRIDS, CLOSEST, LARGEST = 8, (0.8, 1.4), 15.0  # of a part; Angstrom, H-H of two molecules; eV/Angstrom
WATER = np.array([[0, 0, 0], [0.757, 0.586, 0], [-0.757, 0.586, 0]])
ROUNDING = 2.0**13  # forces are multiples of its inverse, 1e-4 eV/Angstrom, which compresses well


class Springs(Calculator):
    """Harmonic O-H and H-H distances, which make a rigid water flexible."""

    implemented_properties = ["energy", "forces"]  # noqa: RUF012  (ASE's type)

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        R = self.atoms.positions.reshape(-1, 3, 3)
        forces, energy = np.zeros_like(R), 0.0
        for i, j, stiffness in ((0, 1, 46.0), (0, 2, 46.0), (1, 2, 10.0)):  # eV/Angstrom^2
            vectors = R[:, i] - R[:, j]
            distances = np.linalg.norm(vectors, axis=-1, keepdims=True)
            stretch = distances - np.linalg.norm(WATER[i] - WATER[j])
            energy += stiffness / 2 * (stretch**2).sum()
            pull = -stiffness * stretch * vectors / distances
            forces[:, i] += pull
            forces[:, j] -= pull
        self.results = {"energy": energy, "forces": forces.reshape(-1, 3)}


def grid(rng: np.random.RandomState, density: float) -> Atoms:
    """Return a cube of molecules on a disturbed grid, each turned at random."""
    side = (MOLECULES * VOLUME / density) ** (1 / 3)
    cells = int(np.ceil(MOLECULES ** (1 / 3)))
    places = np.stack(np.meshgrid(*[np.arange(cells) + 0.5] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    centers = places[rng.permutation(len(places))[:MOLECULES]] * side / cells + rng.normal(0, 0.1, (MOLECULES, 3))
    turned = np.einsum("nij,aj->nai", Rotation.random(MOLECULES, random_state=rng).as_matrix(), WATER)
    return Atoms("OHH" * MOLECULES, (centers[:, None] + turned).reshape(-1, 3), cell=[side] * 3, pbc=True)


def label(atoms: Atoms) -> dict[str, np.ndarray]:
    """Return a structure with its labels: eV, eV/A, eV/A^3."""
    if atoms.calc is None:
        atoms.calc = TBLite(method=METHOD, verbosity=0)
    return {
        "Z": atoms.numbers.astype(np.uint8),
        "R": atoms.positions.astype(np.float32),
        "cell": atoms.cell.array.astype(np.float32),
        "energy": atoms.get_potential_energy(),
        "forces": (np.round(atoms.get_forces() * ROUNDING) / ROUNDING).astype(np.float32),
        "stress": atoms.get_stress(voigt=False).astype(np.float32),
    }


def sheared(rng: np.random.RandomState, atoms: Atoms) -> Atoms:
    """Return the box strained at random, with its volume kept and its molecules whole."""
    strain = np.eye(3) + np.tril(rng.uniform(-STRAIN, STRAIN, (3, 3)))
    strain /= np.linalg.det(strain) ** (1 / 3)
    oxygens = np.repeat(atoms.positions[::3], 3, axis=0)
    strained = atoms.copy()
    strained.set_cell(atoms.cell.array @ strain)
    strained.positions += oxygens @ strain - oxygens
    return strained


def box(seed: int, index: int) -> list[dict[str, np.ndarray]]:
    """Return the labelled frames of one box; any number of indices covers densities and temperatures evenly."""
    rng = np.random.RandomState(1000 * seed + index)
    density = DENSITIES[0] + np.ptp(DENSITIES) * ((0.5 + 0.6180 * index) % 1)
    temperature = TEMPERATURES[0] + np.ptp(TEMPERATURES) * ((0.7549 * index) % 1)
    atoms = grid(rng, density)
    atoms.calc = SumCalculator([TIP3P(rc=4.3), Springs()])
    MaxwellBoltzmannDistribution(atoms, temperature_K=temperature, rng=rng)
    settings = {"temperature_K": temperature, "friction": 0.02 / units.fs, "rng": rng, "fixcm": False}
    melt = Langevin(atoms, 1.0 * units.fs, **settings)
    melt.run(EQUILIBRATION)
    found = []
    for _ in range(FRAMES):
        melt.run(STRIDE)
        frame = sheared(rng, atoms) if index % 2 else atoms.copy()
        quiet = frame.copy()
        frame.positions += rng.normal(0, rng.uniform(*DISTURBANCE), frame.positions.shape)
        found.append(label(frame))
    quiet.calc = TBLite(method=METHOD, verbosity=0)
    quiet.set_masses(np.where(quiet.numbers == 1, HEAVY, quiet.get_masses()))
    MaxwellBoltzmannDistribution(quiet, temperature_K=temperature, rng=rng)
    dynamics = Langevin(quiet, 1.5 * units.fs, **settings)
    for _ in range(STEPS // XTB_STRIDE):
        dynamics.run(XTB_STRIDE)
        found.append(label(quiet))
    return found


def contacts(seed: int, index: int) -> list[dict[str, np.ndarray]]:
    """Return labelled grids, whose molecules are turned until no two come closer than a random limit."""
    rng = np.random.RandomState(1000 * seed + 500 + index)
    molecules = np.repeat(np.arange(MOLECULES), 3)
    found = []
    while len(found) < GRIDS:
        atoms = grid(rng, rng.uniform(*DENSITIES))
        limits = rng.uniform(*CLOSEST) + 0.35 * np.add.outer(atoms.numbers == 8, atoms.numbers == 8)
        for _ in range(500):
            distances = atoms.get_all_distances(mic=True) + 9.0 * (molecules[:, None] == molecules)
            close = np.unique(molecules[(distances < limits).any(axis=1)])
            for molecule in close[rng.permutation(len(close))[:3]]:
                turned = Rotation.random(random_state=rng).apply(WATER)
                atoms.positions[3 * molecule : 3 * molecule + 3] = atoms.positions[3 * molecule] + turned
            if len(close) == 0:
                row = label(atoms)
                found += [row] if np.abs(row["forces"]).max() < LARGEST else []
                break
    return found


def part(task: tuple[Path, Callable | None, list[Atoms]]) -> None:
    """Write one part: the frames of a box or grids by seed and index, or the structures of a file."""
    path, make, structures = task
    found = [label(atoms) for atoms in structures] if make is None else make()
    unfinished = path.with_suffix(".tmp.npz")
    np.savez(unfinished, N=np.array([len(row["Z"]) for row in found], np.int32), **joined(found))
    unfinished.replace(path)


def joined(rows: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    flat = ("Z", "R", "forces")
    return {key: (np.concatenate if key in flat else np.array)([row[key] for row in rows]) for key in rows[0]}


README = """# The embedded liquid

`water_xtb.npz` contains {count} boxes of liquid water, {low:.2f} to {high:.2f} g/cm3, labelled with {method}.
This project made it with `python tools/make_water.py --boxes {boxes} --grids {grids} --seed {seed}{frames}`,
whose docstring describes the method. It contains no data of others. Versions: {versions}. The
dynamics is chaotic, so another processor yields other boxes of the same kind.

{of_boxes} of the boxes are frames of {boxes} trajectories, {of_grids} are grids with contacts between molecules.
{of_file}
The labels are semi-empirical and meant for tests and teaching, not for research.

The file contains no pickled data. Its arrays are `N`, `Z`, `R` [sum N, 3] and `cell` [boxes, 3, 3] in Angstrom,
`pbc`, `part` (which trajectory), and

| key | shape | unit | |
| --- | --- | --- | --- |
| energy | boxes | eV | total energy; mean per atom {mean:.4f}, standard deviation {std:.4f} |
| forces | sum N, 3 | eV/Ang | root mean square of the components {rms:.3f}, mean absolute value {mae:.3f} |
| stress | boxes, 3, 3 | eV/Ang^3 | mean pressure {pressure:.2f} GPa, standard deviation {spread:.2f} GPa |

Frames of one trajectory are correlated, so a random split is an easier test than a split by `part`.
"""
OF_FILE = """{count} are those of `{name}`, frames of a model's own dynamics. That model was trained on the
trajectories alone, and in its dynamics hydrogens of two molecules fell together.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--boxes", type=int, default=8)
    parser.add_argument("--grids", type=int, default=6, help=f"parts of {GRIDS} grids")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--frames", type=Path, help="structures to label as well, in any format of ASE")
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    parser.add_argument("--parts", type=Path, default=Path("build/water_xtb"))
    parser.add_argument("--output", type=Path, default=Path("dimenet_tf/data/sample/water_xtb.npz"))
    args = parser.parse_args()
    args.parts.mkdir(parents=True, exist_ok=True)
    tasks = [
        *((args.parts / f"{args.seed}-{i}.npz", partial(box, args.seed, i), []) for i in range(args.boxes)),
        *((args.parts / f"{args.seed}-grids-{i}.npz", partial(contacts, args.seed, i), []) for i in range(args.grids)),
    ]
    structures = ase.io.read(args.frames, ":") if args.frames else []
    for start in range(0, len(structures), 8):
        chosen = [Atoms(s.numbers, s.positions, cell=s.cell, pbc=True) for s in structures[start : start + 8]]
        tasks.append((args.parts / f"{args.frames.stem}-{start}.npz", None, chosen))
    missing, begin = [task for task in tasks if not task[0].exists()], time.time()
    with multiprocessing.Pool(args.processes) as pool:
        for _ in tqdm(pool.imap(part, missing), total=len(missing), unit="part"):
            pass
    print(f"{len(missing)} of {len(tasks)} parts made in {time.time() - begin:.0f} s")

    parts = [dict(np.load(path)) for path, *_ in tasks]
    counts = np.array([len(part["N"]) for part in parts])
    arrays = {key: np.concatenate([p[key] for p in parts]) for key in parts[0]}
    count = len(arrays["N"])
    np.savez_compressed(
        args.output,
        **arrays,
        pbc=np.ones((count, 3), bool),
        part=np.repeat(np.arange(len(parts)), counts).astype(np.uint8),
    )
    per_atom, pressure = arrays["energy"] / arrays["N"], -np.trace(arrays["stress"], axis1=1, axis2=2) / 3 / units.GPa
    density = arrays["N"] / 3 * VOLUME / np.abs(np.linalg.det(arrays["cell"].astype(float)))
    args.output.with_suffix(".md").write_text(
        README.format(
            count=count,
            low=density.min(),
            high=density.max(),
            method=METHOD,
            of_boxes=counts[: args.boxes].sum(),
            of_grids=counts[args.boxes : args.boxes + args.grids].sum(),
            of_file=OF_FILE.format(count=len(structures), name=args.frames.name) if args.frames else "",
            boxes=args.boxes,
            grids=args.grids,
            seed=args.seed,
            frames=f" --frames {args.frames.name}" if args.frames else "",
            versions=", ".join(f"{p} {importlib.metadata.version(p)}" for p in ("tblite", "ase", "numpy")),
            mean=per_atom.mean(),
            std=per_atom.std(),
            rms=np.sqrt((arrays["forces"] ** 2).mean()),
            mae=np.abs(arrays["forces"]).mean(),
            pressure=pressure.mean(),
            spread=pressure.std(),
        )
    )
    print(f"{args.output}: {count} boxes, {args.output.stat().st_size} bytes")


if __name__ == "__main__":
    main()
