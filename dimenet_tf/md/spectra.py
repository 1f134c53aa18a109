"""Vibrational spectra of a molecule from molecular dynamics: density of states, infrared, Raman.

The molecule is relaxed; trajectories start from it, are thermalised (Langevin), stop translating and rotating, and go
on at constant energy, all of them as one batch. What is computed: docs/spectra.md. `dimenet-tf spectra MODEL
structure.xyz` computes them.
"""

from __future__ import annotations

if __name__ == "__main__":
    raise SystemExit("error: python -m dimenet_tf.md.spectra is no longer a command; use: dimenet-tf spectra")

import json
from pathlib import Path

import numpy as np
from ase import units

from dimenet_tf.errors import UserError
from dimenet_tf.md import harmonic as normal_modes
from dimenet_tf.md import spectrum
from dimenet_tf.md.certify import fingerprint
from dimenet_tf.md.intensities import LASER
from dimenet_tf.md.trajectories import Recording, Settings, drift, run
from dimenet_tf.md.velocities import count_vibrations
from dimenet_tf.predictor import load
from dimenet_tf.runs.files import replace_text
from dimenet_tf.structures.inputs import read_molecule
from dimenet_tf.version import __version__

RESOLUTION = 10.0  # cm^-1


def write(
    table: dict[str, np.ndarray], modes: normal_modes.Harmonic | None, temperature: float, about: dict, folder: Path
) -> None:
    """Write table, picture and description."""
    normal_modes.write_csv(table, folder / "spectrum.csv")
    spectrum.draw(table, modes, temperature, folder / "spectrum.png")
    replace_text(folder / "spectra.json", json.dumps({"dimenet_tf": __version__, **about}, indent=1))
    print(f"spectrum.csv, spectrum.png, spectra.json: {folder}")


def save_recording(recording: Recording, interval: float, path: Path) -> None:
    """Write what was recorded as one npz file, with the time of every record in fs."""
    arrays = {name: array for name, array in recording._asdict().items() if array is not None}
    np.savez(path, time=interval * np.arange(1, len(recording.energies) + 1), **arrays)


def molecular_spectra(
    model: str | Path,
    structure: str | Path,
    folder: Path,
    settings: Settings,
    resolution: float = RESOLUTION,
    laser: float = LASER,
    harmonic: bool = False,
) -> None:
    """Compute the spectra of a molecule and write them into a folder; a call that was stopped is continued.

    Parameters
    ----------
    model : as `dimenet_tf.load`, with forces
    structure : file with one molecule, Angstrom
    folder : of what is written
    settings : of the dynamics
    resolution : full width of a line at half of its height, cm^-1
    laser : wavelength of the Raman spectrum's, nm
    harmonic : bool, the normal modes alone, without dynamics
    """
    settings.check()
    interval = settings.timestep * settings.stride
    spectrum.check(resolution, laser, settings.records * interval, interval)
    predictor, atoms = load(model), read_molecule(structure)
    if predictor.energy is None:
        raise UserError(f"{model} has no forces: dynamics needs a model that was trained with them")
    if len(atoms) < 2:
        raise UserError(f"{structure} holds a single atom, which does not vibrate")
    relaxed, modes = normal_modes.find_minimum(predictor, atoms)
    vibrations = count_vibrations(relaxed)
    folder.mkdir(parents=True, exist_ok=True)
    relaxed.write(folder / "relaxed.xyz", format="extxyz")
    normal_modes.write_csv(normal_modes.columns(modes), folder / "harmonic.csv")
    modes.vibrations.write_jmol(str(folder / "modes.xyz"))
    print(f"relaxed: {relaxed.get_potential_energy():.4f} eV; harmonic analysis:")
    print(normal_modes.format_table(modes))
    missing = spectrum.without(predictor.units, "the model has")
    if missing:
        print(missing)
    if harmonic:
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
        resolution,
        laser,
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
        "model": str(model),
        "weights": weights,
        "structure": str(structure),
        "settings": {**settings._asdict(), "resolution": resolution, "laser": laser},
        "units": {"temperature": "K", "timestep": "fs", "equilibration": "ps", "resolution": "cm^-1", "laser": "nm"},
        "mean temperature / K": mean,
        "largest drift / meV/atom/ps": slope,
        "relaxed above lowest potential energy / meV": 1000 * below,
    }
    write(table, modes, settings.temperature, about, folder)
