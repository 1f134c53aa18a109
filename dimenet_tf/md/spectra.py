"""Vibrational spectra of a molecule from molecular dynamics: density of states, infrared, Raman.

python -m dimenet_tf.md.spectra MODEL structure.xyz               # into the folder spectra/
python -m dimenet_tf.md.spectra MODEL structure.xyz --harmonic    # the normal modes alone, no dynamics

The molecule is relaxed; trajectories start from it, are thermalised (Langevin), stop translating and rotating, and go
on at constant energy, all of them as one batch. A run that was stopped goes on by the same command. What is computed:
docs/spectra.md.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from dimenet_tf.cli import one_line_errors, quiet_tensorflow

quiet_tensorflow()

import numpy as np  # noqa: E402
from ase import units  # noqa: E402

import dimenet_tf  # noqa: E402
from dimenet_tf.data.inputs import read_molecule  # noqa: E402
from dimenet_tf.errors import UserError  # noqa: E402
from dimenet_tf.files import replace_text  # noqa: E402
from dimenet_tf.md import harmonic as normal_modes  # noqa: E402
from dimenet_tf.md import spectrum  # noqa: E402
from dimenet_tf.md.certify import fingerprint  # noqa: E402
from dimenet_tf.md.intensities import LASER  # noqa: E402
from dimenet_tf.md.trajectories import Recording, Settings, drift, run  # noqa: E402
from dimenet_tf.md.velocities import count_vibrations  # noqa: E402
from dimenet_tf.predictor import load  # noqa: E402

RESOLUTION = 10.0  # cm^-1


def add_analysis_options(parser: argparse.ArgumentParser) -> None:
    """Add what says how records become spectra."""
    parser.add_argument("--resolution", type=float, default=RESOLUTION, help="FWHM of a line, cm^-1 (default 10)")
    parser.add_argument("--laser", type=float, default=LASER, help="wavelength, nm (default 514)")


def write(
    table: dict[str, np.ndarray], modes: normal_modes.Harmonic | None, temperature: float, about: dict, folder: Path
) -> None:
    """Write table, picture and description."""
    normal_modes.write_csv(table, folder / "spectrum.csv")
    spectrum.draw(table, modes, temperature, folder / "spectrum.png")
    replace_text(folder / "spectra.json", json.dumps({"dimenet_tf": dimenet_tf.__version__, **about}, indent=1))
    print(f"spectrum.csv, spectrum.png, spectra.json: {folder}")


def save_recording(recording: Recording, interval: float, path: Path) -> None:
    """Write what was recorded as one npz file, with the time of every record in fs."""
    arrays = {name: array for name, array in recording._asdict().items() if array is not None}
    np.savez(path, time=interval * np.arange(1, len(recording.energies) + 1), **arrays)


@one_line_errors()
def main() -> None:
    defaults = Settings()
    parser = argparse.ArgumentParser(
        prog="python -m dimenet_tf.md.spectra",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", help="run folder, folder of a model, or name of a pretrained one")
    parser.add_argument("structure", help="a file with one molecule, in any format that ASE reads; Angstrom")
    parser.add_argument("output", nargs="?", type=Path, default=Path("spectra"), help="folder (default spectra)")
    parser.add_argument("--temperature", type=float, default=defaults.temperature, help="K (default 300)")
    parser.add_argument(
        "--picoseconds", type=float, default=defaults.picoseconds, help="of every trajectory (default 20)"
    )
    parser.add_argument("--timestep", type=float, default=defaults.timestep, help="fs (default 0.5)")
    parser.add_argument("--stride", type=int, default=defaults.stride, help="steps from record to record (default 2)")
    parser.add_argument("--trajectories", type=int, default=defaults.trajectories, help="at once (default 8)")
    parser.add_argument(
        "--equilibration", type=float, default=defaults.equilibration, help="ps with the thermostat (default 2)"
    )
    parser.add_argument("--seed", type=int, default=defaults.seed)
    add_analysis_options(parser)
    parser.add_argument("--harmonic", action="store_true", help="normal modes alone, no dynamics")
    args = parser.parse_args()
    settings = Settings(**{name: getattr(args, name) for name in Settings._fields})
    settings.check()
    interval = settings.timestep * settings.stride
    spectrum.check(args.resolution, args.laser, settings.records * interval, interval)
    predictor, atoms = load(args.model), read_molecule(args.structure)
    if predictor.energy is None:
        raise UserError(f"{args.model} has no forces: dynamics needs a model that was trained with them")
    if len(atoms) < 2:
        raise UserError(f"{args.structure} holds a single atom, which does not vibrate")
    relaxed, modes = normal_modes.find_minimum(predictor, atoms)
    vibrations = count_vibrations(relaxed)
    folder = args.output
    folder.mkdir(parents=True, exist_ok=True)
    relaxed.write(folder / "relaxed.xyz", format="extxyz")
    normal_modes.write_csv(normal_modes.columns(modes), folder / "harmonic.csv")
    modes.vibrations.write_jmol(str(folder / "modes.xyz"))
    print(f"relaxed: {relaxed.get_potential_energy():.4f} eV; harmonic analysis:")
    print(normal_modes.format_table(modes))
    missing = spectrum.without(predictor.units, "the model has")
    if missing:
        print(missing)
    if args.harmonic:
        print(f"relaxed.xyz, harmonic.csv, modes.xyz: {folder}")
        return
    weights = fingerprint(predictor)
    job = {"weights": weights, "atoms": atoms.numbers.tolist(), "structure": atoms.positions.tolist()}
    job["masses"] = atoms.get_masses().tolist()
    recording = run(predictor, relaxed, settings, folder / "pieces", job)
    save_recording(recording, interval, folder / "recording.npz")
    table = spectrum.compute(
        recording.velocities,
        relaxed.get_masses(),
        recording.dipole,
        recording.polarizability,
        vibrations,
        interval,
        settings.timestep,
        settings.temperature,
        args.resolution,
        args.laser,
    )
    slope = drift(recording, interval, len(relaxed))
    mean = float(recording.temperatures.mean())
    kinetic = 0.5 * vibrations * units.kB * recording.temperatures
    below = relaxed.get_potential_energy() - float((recording.energies - kinetic).min())
    if below > 1e-3:
        print(
            f"the trajectories come to energies {1000 * below:.0f} meV below the relaxed molecule's: "
            "to another conformer, which harmonic analysis does not show"
        )
    print(f"mean temperature {mean:.0f} K, largest drift of the energy {slope:.3g} meV/atom/ps")
    about = {
        "model": str(args.model),
        "weights": weights,
        "structure": str(args.structure),
        "settings": {**settings._asdict(), "resolution": args.resolution, "laser": args.laser},
        "units": {"temperature": "K", "timestep": "fs", "equilibration": "ps", "resolution": "cm^-1", "laser": "nm"},
        "mean temperature / K": mean,
        "largest drift / meV/atom/ps": slope,
        "relaxed above lowest potential energy / meV": 1000 * below,
    }
    write(table, modes, settings.temperature, about, folder)


if __name__ == "__main__":
    main()
