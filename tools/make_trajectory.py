"""Make the embedded trajectory: ethanol at 500 K, labelled with GFN2-xTB.

    pip install -e .[sample]
    python tools/make_trajectory.py                     # writes dimenet_tf/data/sample/ethanol_xtb.npz

Langevin dynamics (ASE; 0.5 fs, friction 0.01/fs) from the relaxed molecule, one trajectory for each seed: 2.5 ps of
equilibration, then a frame every 20 fs. Positions are rounded to float32 first; energy, forces, dipole moment and
polarizability tensor (the dipole's central difference in an electric field) belong to the stored numbers.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"  # one trajectory per process; must stand before tblite is imported

import argparse
import importlib.metadata
import multiprocessing
from pathlib import Path

import numpy as np
from ase import Atoms, units
from ase.build import molecule
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution, Stationary, ZeroRotation
from ase.optimize import BFGS
from make_sample_data import ACCURACY, FIELD, METHOD, singlepoint
from tblite.ase import TBLite
from tqdm import tqdm

MOLECULE, TEMPERATURE = "CH3CH2OH", 500.0
TIMESTEP, FRICTION = 0.5, 0.01  # fs, 1/fs
EQUILIBRATION, STRIDE = 5000, 40  # steps


def label(atoms: Atoms) -> dict[str, np.ndarray]:
    """Compute one frame's labels: eV, eV/A, e*A, a0^3."""
    positions = atoms.positions.astype(np.float32).astype(np.float64)
    result = singlepoint(atoms.numbers, positions)
    polarizability = np.empty((3, 3))
    for axis, direction in enumerate(np.eye(3)):
        up, down = (singlepoint(atoms.numbers, positions, field=s * FIELD * direction)["dipole"] for s in (1, -1))
        polarizability[axis] = (up - down) / (2 * FIELD)
    return {
        "R": positions.astype(np.float32),
        "energy": result["energy"] * units.Hartree,
        "forces": (-result["gradient"] * units.Hartree / units.Bohr).astype(np.float32),
        "dipole": (result["dipole"] * units.Bohr).astype(np.float32),
        "polarizability": ((polarizability + polarizability.T) / 2).astype(np.float32),
    }


def trajectory(task: tuple[int, int]) -> list[dict[str, np.ndarray]]:
    """Return the frames of one trajectory; `task` is its seed and the number of frames."""
    seed, frames = task
    rng = np.random.RandomState(seed)
    atoms = molecule(MOLECULE)
    atoms.calc = TBLite(method=METHOD, accuracy=ACCURACY, verbosity=0)
    BFGS(atoms, logfile=None).run(fmax=0.001)
    MaxwellBoltzmannDistribution(atoms, temperature_K=2 * TEMPERATURE, rng=rng)  # half of it becomes potential energy
    Stationary(atoms), ZeroRotation(atoms)
    dynamics = Langevin(
        atoms, TIMESTEP * units.fs, temperature_K=TEMPERATURE, friction=FRICTION / units.fs, rng=rng, fixcm=False
    )
    dynamics.run(EQUILIBRATION)
    found = []
    for _ in tqdm(range(frames), desc=f"seed {seed}", unit="frame"):
        dynamics.run(STRIDE)
        atoms.positions -= atoms.positions.mean(axis=0)
        found.append(label(atoms))
    return found


README = """# The embedded trajectory

`ethanol_xtb.npz` contains {count} frames of ethanol at {temperature:g} K, labelled with {method}. This project
made it with `python tools/make_trajectory.py --count {count} --trajectories {trajectories}`, whose docstring
describes the method. It contains no data of others. Versions: {versions}. The dynamics is chaotic, so another
processor yields other frames of the same kind.

The labels are semi-empirical and meant for tests and teaching, not for research. {method}'s polarizabilities
are far too small.

The file contains no pickled data. Its arrays are `id`, `N`, `Z`, `R` [sum N, 3] in Angstrom, `trajectory`
(which of the {trajectories}), and

| key | shape | unit | |
| --- | --- | --- | --- |
| energy | frames | eV | total energy; mean {mean:.3f}, standard deviation {std:.3f} |
| forces | sum N, 3 | eV/Ang | root mean square of the components {rms:.3f}, mean absolute value {mae:.3f} |
| dipole | frames, 3 | e*Ang | mean length {dipole:.3f} |
| polarizability | frames, 3, 3 | a0^3 | mean of a third of the trace {alpha:.2f} |

Neighboring frames are 20 fs apart and correlated, so a random split is an easier test than a split by
`trajectory`.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=2000, help="frames")
    parser.add_argument("--trajectories", type=int, default=2)
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    parser.add_argument("--output", type=Path, default=Path("dimenet_tf/data/sample/ethanol_xtb.npz"))
    args = parser.parse_args()
    tasks = [(seed, args.count // args.trajectories) for seed in range(args.trajectories)]
    with multiprocessing.Pool(args.processes) as pool:
        parts = pool.map(trajectory, tasks, chunksize=1)
    frames = [frame for part in parts for frame in part]
    numbers = molecule(MOLECULE).numbers
    stacked = {key: np.array([frame[key] for frame in frames]) for key in frames[0]}
    forces = stacked["forces"]
    np.savez_compressed(
        args.output,
        id=np.arange(len(frames)),
        N=np.full(len(frames), len(numbers), np.int32),
        Z=np.tile(numbers, len(frames)).astype(np.uint8),
        trajectory=np.repeat(np.arange(len(parts)), [len(part) for part in parts]).astype(np.uint8),
        **{**stacked, "R": stacked["R"].reshape(-1, 3), "forces": forces.reshape(-1, 3)},
    )
    packages = ("tblite", "ase", "numpy")
    args.output.with_suffix(".md").write_text(
        README.format(
            count=len(frames),
            trajectories=len(parts),
            temperature=TEMPERATURE,
            method=METHOD,
            versions=", ".join(f"{p} {importlib.metadata.version(p)}" for p in packages),
            mean=stacked["energy"].mean(),
            std=stacked["energy"].std(),
            rms=np.sqrt((forces**2).mean()),
            mae=np.abs(forces).mean(),
            dipole=np.linalg.norm(stacked["dipole"], axis=1).mean(),
            alpha=np.trace(stacked["polarizability"], axis1=1, axis2=2).mean() / 3,
        )
    )


if __name__ == "__main__":
    main()
