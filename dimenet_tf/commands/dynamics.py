"""Certificates, spectra and the driver of i-PI."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from dimenet_tf.commands.console import DOMAIN, SETTINGS, ModelCommand, key_option, model_argument, pairs, unit_option

structure_argument = click.argument("structure", type=click.Path())
folder_argument = click.argument("folder", type=click.Path(path_type=Path), default="spectra")
resolution_option = click.option("--resolution", default=10.0, show_default=True, help="Width of a line, cm^-1.")
laser_option = click.option("--laser", default=514.0, show_default=True, help="Wavelength of the laser, nm.")


@click.command(cls=ModelCommand, context_settings=SETTINGS)
@model_argument
@click.option("--frames", type=click.Path(), help="Held-out frames with energy and forces, if not the run's own.")
@key_option
@unit_option
@click.option("--picoseconds", default=10.0, show_default=True, help="Length of the dynamics; 10 for a certificate.")
@click.option("--temperature", default=300.0, show_default=True, help="K.")
@click.option("--timestep", default=0.5, show_default=True, help="fs.")
def certify(
    model: str,
    frames: str | None,
    keys: tuple[str, ...],
    units: tuple[str, ...],
    picoseconds: float,
    temperature: float,
    timestep: float,
) -> None:
    """Measure whether a force field is fit for dynamics.

    Forces against finite differences, symmetries, the cutoff, the drift of the energy, errors on held-out frames. The
    certificate is printed and written into the model's folder.

    \b
    Example:
      dimenet-tf certify runs/2
      dimenet-tf certify runs/2 --frames my.extxyz --key energy=REF_energy
    """
    names, their_units = pairs(keys, "--key"), pairs(units, "--unit")
    from dimenet_tf.md.certify import certify_model

    certify_model(model, frames, names, their_units, picoseconds, temperature, timestep)


@click.command(cls=ModelCommand, context_settings=SETTINGS)
@model_argument
@structure_argument
@folder_argument
@click.option("--temperature", default=300.0, show_default=True, help="K.")
@click.option("--picoseconds", default=20.0, show_default=True, help="Length of each trajectory.")
@click.option("--timestep", default=0.5, show_default=True, help="fs.")
@click.option("--stride", default=2, show_default=True, help="Steps from record to record.")
@click.option("--trajectories", default=8, show_default=True, help="At once.")
@click.option("--equilibration", default=2.0, show_default=True, help="ps with the thermostat.")
@click.option("--seed", default=0, show_default=True)
@resolution_option
@laser_option
@click.option("--harmonic", is_flag=True, help="Normal modes alone, no dynamics.")
def spectra(
    model: str, structure: str, folder: Path, resolution: float, laser: float, harmonic: bool, **settings: Any
) -> None:
    """Compute the vibrational spectra of a molecule.

    Density of states, infrared and Raman by dynamics (docs/spectra.md). The same command continues a stopped one.

    \b
    Example:
      dimenet-tf spectra painn-ethanol_xtb ethanol.xyz --temperature 50
    """
    from dimenet_tf.md.spectra import molecular_spectra
    from dimenet_tf.md.trajectories import Settings

    molecular_spectra(model, structure, folder, Settings(**settings), resolution, laser, harmonic)


@click.command(cls=ModelCommand, context_settings=SETTINGS)
@model_argument
@structure_argument
@click.option("--address", default="localhost", show_default=True, help="Of i-PI.")
@click.option("--port", default=31415, show_default=True, help="Of i-PI.")
@click.option("--unix", metavar="NAME", help="i-PI's Unix socket of this name instead of address and port.")
@click.option("--beads", default=1, show_default=True, help="Connections, evaluated as one batch.")
@click.option("--domain", type=DOMAIN, default="flag", help="Structures outside of the domain: warn, or end.")
def ipi(model: str, structure: str, address: str, port: int, unix: str | None, beads: int, domain: str) -> None:
    """Drive i-PI by a model: path integrals, ring polymers.

    Start i-PI first. STRUCTURE holds the elements in i-PI's order. All beads are evaluated as one batch.

    \b
    Example:
      i-pi input.xml &
      dimenet-tf ipi painn-ethanol_xtb ethanol.xyz --beads 16
    """
    from dimenet_tf.md.ipi import connector, drive

    click.echo(drive(model, structure, connector(address, port, unix), beads, domain))


@click.command(cls=ModelCommand, context_settings=SETTINGS)
@click.argument("input", type=click.Path(path_type=Path))
@folder_argument
@resolution_option
@laser_option
def ipi_spectra(input: Path, folder: Path, resolution: float, laser: float) -> None:
    """Compute spectra from a simulation with i-PI.

    INPUT is i-PI's input.xml with its output next to it; it must have written `v_centroid` (docs/spectra.md).

    \b
    Example:
      dimenet-tf ipi-spectra input.xml
    """
    from dimenet_tf.md.ipi_spectra import simulated_spectra

    simulated_spectra(input, folder, resolution, laser)
