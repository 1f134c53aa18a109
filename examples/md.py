"""Relax a molecule, heat it, let it move at constant energy: `python examples/md.py` (a minute or two).

Writes relaxed.xyz, nvt.traj, nve.traj, md.csv and md.png into `md/`. Another model or molecule of its elements:
python examples/md.py --model runs/1 --structure my.xyz
"""

import argparse
import csv
from pathlib import Path

import ase.io
import numpy as np
from ase import units
from ase.build import molecule
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import Stationary, ZeroRotation
from ase.md.verlet import VelocityVerlet
from ase.optimize import BFGS
from matplotlib.figure import Figure

from dimenet_tf.commands.console import import_tensorflow, one_line_errors

import_tensorflow()

from dimenet_tf.errors import UserError  # noqa: E402
from dimenet_tf.md import DimeNetCalculator  # noqa: E402
from dimenet_tf.md.velocities import count_vibrations, temperature_of, thermalize  # noqa: E402


@one_line_errors()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="dimenet_pp-ethanol_xtb-forces")
    parser.add_argument("--structure", help="a file that ASE reads; ethanol where left out")
    parser.add_argument("--temperature", type=float, default=300.0, help="K")
    parser.add_argument("--picoseconds", type=float, default=1.0, help="of each part")
    parser.add_argument("--timestep", type=float, default=0.5, help="fs")
    parser.add_argument("--output", type=Path, default=Path("md"))
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    if not (args.picoseconds > 0 and args.timestep > 0):
        raise UserError("--picoseconds and --timestep must be greater than 0")
    if args.structure and not Path(args.structure).exists():
        raise UserError(f"no such file: {args.structure}")
    atoms = ase.io.read(args.structure) if args.structure else molecule("CH3CH2OH")
    atoms.calc = DimeNetCalculator(args.model)

    BFGS(atoms, logfile=None).run(fmax=0.01, steps=500)
    ase.io.write(args.output / "relaxed.xyz", atoms)
    relaxed = atoms.get_potential_energy()
    print(f"relaxed: {relaxed:.4f} eV, largest force {np.abs(atoms.get_forces()).max():.4f} eV/Ang")

    vibrations = count_vibrations(atoms)
    thermalize(atoms, 2 * args.temperature, np.random.default_rng(0))  # half of it goes into the potential
    dt = args.timestep * units.fs
    heat = {"temperature_K": args.temperature, "friction": 0.01 / units.fs, "rng": np.random.RandomState(0)}
    # fixcm would not sample the right ensemble; the thermostat lets the molecule move and rotate
    parts = {
        "nvt": lambda **files: Langevin(atoms, dt, fixcm=False, **heat, **files),
        "nve": lambda **files: VelocityVerlet(atoms, dt, **files),
    }
    rows, steps = [], round(1000 * args.picoseconds / args.timestep)
    for name, make in parts.items():
        start = rows[-1][1] if rows else 0.0
        if name == "nve":  # vibrations alone
            Stationary(atoms, preserve_temperature=False)
            ZeroRotation(atoms, preserve_temperature=False)
        dynamics = make(trajectory=str(args.output / f"{name}.traj"), loginterval=10)

        def record(name=name, dynamics=dynamics, start=start) -> None:
            energy = atoms.get_potential_energy() - relaxed, atoms.get_total_energy() - relaxed
            kelvin = atoms.get_temperature() if name == "nvt" else temperature_of(atoms, vibrations)
            rows.append((name, start + dynamics.get_time() / (1000 * units.fs), *energy, kelvin))

        dynamics.attach(record, interval=10)
        dynamics.run(steps)
        part = np.array([row[2:] for row in rows if row[0] == name])
        print(f"{name}: mean {part[:, 2].mean():.0f} K, total energy {part[0, 1]:.4f} -> {part[-1, 1]:.4f} eV")
    with (args.output / "md.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["part", "time / ps", "potential energy / eV", "total energy / eV", "temperature / K"])
        writer.writerows(rows)
    draw(rows, args.output / "md.png")
    print(f"trajectories, table and picture: {args.output}")


def draw(rows: list[tuple], path: Path) -> None:
    """Draw energies above the relaxed molecule and the temperature against time."""
    figure = Figure(figsize=(9, 6), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True)
    time = [row[1] for row in rows]
    for column, label in ((2, "potential"), (3, "total")):
        upper.plot(time, [row[column] for row in rows], label=label)
    lower.plot(time, [row[4] for row in rows], color="tab:red")
    switch = next(row[1] for row in rows if row[0] == "nve")
    for axes in (upper, lower):
        axes.axvline(switch, color="gray", linewidth=1)
        axes.grid(alpha=0.3)
    upper.set(ylabel="energy - relaxed / eV", title="left: Langevin (NVT), right: constant energy (NVE)")
    upper.legend()
    lower.set(xlabel="time / ps", ylabel="temperature / K")
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
