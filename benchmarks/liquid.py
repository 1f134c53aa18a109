"""Simulate 64 water molecules with a trained model: `python benchmarks/liquid.py runs/water [--picoseconds 5]`.

A cube at 1 g/cm3 is relaxed and equilibrated (Langevin, 300 K). Then follow dynamics at constant energy (velocity
Verlet) and at constant pressure (Martyna-Tobias-Klein, isotropic, 300 K, 1 bar). The table has drifts of the conserved
energies (slopes of a linear fit), structure, density, share of steps in the model's domain, and wall times. `--output`
keeps a frame every 100 fs, for `tools/make_water.py --frames`.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np
from common import print_machine, print_table, set_threads, water_box

PRESSURE = 1.0  # bar
TIMESTEP = 0.5  # fs
GRAMS = 1.66053907  # g/cm3 of 1 u/Angstrom^3
INTERVAL = 10  # steps between samples
BOND = 1.3  # Angstrom: a hydrogen within it is bound to the oxygen


class Sampler:
    """Quantities of a dynamics, sampled every few steps."""

    def __init__(self, atoms, conserved, file: Path | None) -> None:
        self.atoms, self.conserved, self.file, self.count = atoms, conserved, file, 0
        self.energies, self.kelvin, self.density, self.inside, self.intact = [], [], [], [], []
        self.pairs, self.edges, self.shells = np.zeros(120), np.linspace(0, 6, 121), []
        self.closest = np.inf
        if file is not None:
            file.unlink(missing_ok=True)

    def __call__(self) -> None:
        atoms = self.atoms
        self.energies.append(self.conserved())
        self.kelvin.append(atoms.get_temperature())
        self.density.append(GRAMS * atoms.get_masses().sum() / atoms.get_volume())
        self.inside.append(bool(atoms.calc.in_domain))
        if self.count % 4 == 0:  # every 20 fs
            self.look()
        if self.file is not None and self.count % 20 == 0:
            atoms.write(self.file, format="extxyz", append=True, columns=["symbols", "positions"], write_results=False)
        self.count += 1

    def look(self) -> None:
        """Count pairs of oxygens, and oxygens with two hydrogens; find the closest hydrogens."""
        from vesin import NeighborList

        is_oxygen, is_hydrogen = self.atoms.numbers == 8, self.atoms.numbers == 1
        neighbors = NeighborList(cutoff=6.0, full_list=True)
        i, j, d = neighbors.compute(self.atoms.positions, self.atoms.cell.array, periodic=True, quantities="ijd")
        d_oo = d[is_oxygen[i] & is_oxygen[j]]
        density = is_oxygen.sum() / self.atoms.get_volume()
        volumes = 4 / 3 * np.pi * np.diff(self.edges**3)
        self.pairs += np.histogram(d_oo, self.edges)[0] / is_oxygen.sum() / density / volumes
        self.shells.append(np.sum(d_oo < 3.4) / is_oxygen.sum())
        self.closest = min(self.closest, d[is_hydrogen[i] & is_hydrogen[j]].min())
        bound = is_oxygen[i] & ~is_oxygen[j] & (d < BOND)
        self.intact.append(np.mean(np.bincount(i[bound].astype(int), minlength=len(is_oxygen))[is_oxygen] == 2))

    def row(self, picoseconds: float, seconds: float, steps: int) -> dict[str, float]:
        energies = 1000 * np.array(self.energies) / len(self.atoms)
        times = np.linspace(0, picoseconds, len(energies))
        line = np.polyfit(times, energies, 1)
        centers, g = (self.edges[1:] + self.edges[:-1]) / 2, self.pairs / len(self.shells)
        second = len(self.density) // 2
        return {
            "steps": steps,
            "conserved energy, drift / meV/atom/ps": line[0],
            "conserved energy, standard deviation from the line / meV/atom": np.std(energies - np.polyval(line, times)),
            "mean temperature / K": np.mean(self.kelvin),
            "density, mean of the second half / g/cm3": np.mean(self.density[second:]),
            "density, standard deviation of the second half / g/cm3": np.std(self.density[second:]),
            "O-O, first maximum of g / Ang": centers[g.argmax()],
            "O-O, first maximum of g": g.max(),
            "O-O, first minimum of g / Ang": centers[g.argmax() + g[g.argmax() : 88].argmin()],
            "O-O, neighbors within 3.4 Ang": np.mean(self.shells),
            "H-H, smallest distance / Ang": self.closest,
            "molecules with two hydrogens / %": 100 * np.mean(self.intact),
            "samples in the domain / %": 100 * np.mean(self.inside),
            "wall time / ms per step": 1000 * seconds / steps,
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--picoseconds", type=float, default=5.0, help="of each dynamics")
    parser.add_argument("--equilibration", type=float, default=2.0, help="ps")
    parser.add_argument("--molecules", type=int, default=64)
    parser.add_argument("--density", type=float, default=1.0, help="g/cm3, at the start")
    parser.add_argument("--temperature", type=float, default=300.0, help="K")
    parser.add_argument("--start", type=Path, help="a file; its last structure is equilibrated")
    parser.add_argument("--parts", nargs="*", default=["nve", "npt"], choices=["nve", "npt"])
    parser.add_argument("--output", type=Path, help="folder for trajectories")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    set_threads(args.threads)
    import ase.io
    from ase import Atoms, units
    from ase.md.langevin import Langevin
    from ase.md.nose_hoover_chain import IsotropicMTKNPT
    from ase.md.velocitydistribution import Stationary
    from ase.md.verlet import VelocityVerlet
    from ase.optimize import FIRE

    import dimenet_tf

    if args.output is not None:
        args.output.mkdir(parents=True, exist_ok=True)
    if args.start:
        atoms = ase.io.read(args.start)
    else:
        _, Z, R = water_box(3 * args.molecules)
        side = (args.molecules * 29.9) ** (1 / 3)  # Angstrom, of this box at 1 g/cm3
        atoms = Atoms(Z, R, cell=[side] * 3, pbc=True)
        moved = np.repeat(R[::3], 3, axis=0) * (args.density ** (-1 / 3) - 1)
        atoms.set_cell(atoms.cell * args.density ** (-1 / 3))
        atoms.positions += moved  # molecules stay whole
    atoms.calc = dimenet_tf.Calculator(args.model)
    if not args.start:
        FIRE(atoms, logfile=None).run(fmax=1.0, steps=200)
    rng = np.random.RandomState(0)
    widths = np.sqrt(units.kB * args.temperature * atoms.get_masses())[:, None]
    atoms.set_momenta(rng.normal(0, widths, (len(atoms), 3)))
    step = TIMESTEP * units.fs
    warm = Langevin(atoms, step, temperature_K=args.temperature, friction=0.02 / units.fs, rng=rng, fixcm=False)
    columns = {}

    def measure(name: str, dynamics, conserved, picoseconds: float) -> None:
        steps = round(1000 * picoseconds / TIMESTEP)
        sampler = Sampler(atoms, conserved, args.output and args.output / f"{name}.extxyz")
        dynamics.attach(sampler, interval=INTERVAL)
        begin = time.perf_counter()
        try:
            dynamics.run(steps)
        except dimenet_tf.UserError as error:  # atoms have fallen together or flown apart
            print(f"{name} stopped after {TIMESTEP * dynamics.nsteps:g} fs: {error}")
            return
        columns[name] = sampler.row(picoseconds, time.perf_counter() - begin, steps)
        print(f"{name}: {columns[name]}", file=sys.stderr, flush=True)

    measure("equilibration", warm, atoms.get_total_energy, args.equilibration)
    columns["equilibration"] = {  # the thermostat conserves nothing
        name: value for name, value in columns.get("equilibration", {}).items() if not name.startswith("conserved")
    }
    Stationary(atoms)
    start = atoms.copy()
    for part in args.parts if len(columns["equilibration"]) else []:
        atoms.set_cell(start.cell)
        atoms.set_positions(start.positions)
        atoms.set_momenta(start.get_momenta())
        if part == "nve":
            dynamics = VelocityVerlet(atoms, step)
            conserved = atoms.get_total_energy
        else:
            coupling = {"tdamp": 100 * units.fs, "pdamp": 1000 * units.fs}
            dynamics = IsotropicMTKNPT(
                atoms, step, temperature_K=args.temperature, pressure_au=PRESSURE * units.bar, **coupling
            )
            conserved = dynamics.get_conserved_energy
        measure(part, dynamics, conserved, args.picoseconds)
    print_machine(args.threads)
    print(f"{len(atoms)} atoms, {TIMESTEP:g} fs, {args.temperature:g} K, {atoms.calc.force_field.precision}\n")
    print_table(columns)


if __name__ == "__main__":
    main()
