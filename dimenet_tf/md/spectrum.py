"""Spectra of what dynamics recorded: columns with units, a table, a picture."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import numpy as np
from ase import units
from matplotlib.figure import Figure
from scipy.integrate import trapezoid

from dimenet_tf.errors import UserError
from dimenet_tf.md.correlation import CM_PER_FS, correlation_time, power_spectrum, rate_spectrum, undo_verlet
from dimenet_tf.md.harmonic import Harmonic
from dimenet_tf.md.intensities import (
    LASER,
    RamanActivity,
    anisotropic,
    infrared_intensity,
    isotropic,
    raman_cross_section,
)

PROPERTIES = {"dipole": (3,), "polarizability": (3, 3)}
"""Quantities, in addition to velocities, from which spectra are computed, with their shapes."""
HIGHEST = 5000.0
"""cm^-1: no molecule vibrates beyond (H2: 4400)."""
WAVENUMBER, VDOS, INFRARED = "wavenumber / cm^-1", "vdos / cm", "infrared / (km/mol) cm"
ISOTROPIC, ANISOTROPIC = "raman isotropic / (Ang^4/amu) cm", "raman anisotropic / (Ang^4/amu) cm"
PARALLEL, PERPENDICULAR = "raman parallel / (1e-30 cm^2/sr) cm", "raman perpendicular / (1e-30 cm^2/sr) cm"


def check(resolution: float, laser: float, duration: float, interval: float) -> None:
    """Raise a UserError for what gives no spectrum; before dynamics rather than after it.

    Parameters
    ----------
    resolution : cm^-1
    laser : nm
    duration, interval : of and between records, fs
    """
    if not resolution > 0:
        raise UserError(f"--resolution {resolution:g} must be greater than 0")
    if not 0 < laser < 1e7 / HIGHEST:
        raise UserError(f"--laser {laser:g} must be a wavelength between 0 and {1e7 / HIGHEST:g} nm")
    if interval > 0.5 / (CM_PER_FS * HIGHEST):
        raise UserError(
            f"{interval:g} fs between records are too many for {HIGHEST:g} cm^-1: "
            f"at most {0.5 / (CM_PER_FS * HIGHEST):.2g} fs (--timestep, --stride)"
        )
    if duration < correlation_time(resolution) + 2 * interval:
        raise UserError(
            f"{duration / 1000:g} ps are too short for a resolution of {resolution:g} cm^-1, which needs "
            f"{(correlation_time(resolution) + 2 * interval) / 1000:.3g} ps: --picoseconds, or a larger --resolution"
        )


def vibrational_density_of_states(
    velocities: np.ndarray, masses: np.ndarray, interval: float, resolution: float, degrees: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return wavenumbers, cm^-1, and the power spectrum of the mass-weighted velocities, whose integral is `degrees`.

    Parameters
    ----------
    velocities : (times, trajectories, atoms, 3)
    masses : (atoms,)
    interval : fs between records
    resolution : cm^-1
    degrees : of freedom that move: 3 N, or 3 N - 6 without translations and rotations
    """
    weighted = velocities * np.sqrt(masses)[:, None]
    wavenumbers, density = power_spectrum(weighted, interval, resolution)
    return wavenumbers, density * degrees / trapezoid(density, wavenumbers)


def compute(
    velocities: np.ndarray,
    masses: np.ndarray,
    dipole: np.ndarray | None,
    polarizability: np.ndarray | None,
    degrees: int,
    interval: float,
    timestep: float,
    temperature: float,
    resolution: float = 10.0,
    laser: float = LASER,
) -> dict[str, np.ndarray]:
    """Return the spectra that the records allow.

    With <...> the density over wavenumbers of a mean square (`rate_spectrum`) the infrared spectrum is
    N_A <(dmu/dt)^2> / (12 eps0 c^2 kT), Raman activities are 45 <(da/dt)^2> / kT and 7 * 3/2 <(db/dt)^2> / kT. That is
    classical mechanics with the harmonic quantum correction h c v / kT / (1 - exp(-h c v / kT)), which turns the
    classical correlation function (and exactly the Kubo-transformed one of ring polymers) into the quantum one:
    integrals over lines are the intensities of harmonic analysis. Wavenumbers are freed from the shift of velocity
    Verlet.

    Parameters
    ----------
    velocities : (times, trajectories, atoms, 3), any unit
    masses : (atoms,)
    dipole : (times, trajectories, 3), e*Ang, or None
    polarizability : (times, trajectories, 3, 3), a0^3, or None
    degrees : of freedom that move
    interval, timestep : between records, of the integrator; fs
    temperature : K
    resolution : FWHM of a line, cm^-1
    laser : nm

    Returns
    -------
    dict from names with units to (points,); cross sections below the resolution are NaN
    """
    wavenumbers, density = vibrational_density_of_states(velocities, masses, interval, resolution, degrees)
    true, slope = undo_verlet(wavenumbers, timestep)
    shown = (true > 0) & (true <= HIGHEST)
    table = {WAVENUMBER: true[shown], VDOS: (density / slope)[shown]}

    def change(signal: np.ndarray) -> np.ndarray:
        """Estimate the squared derivative with respect to a normal coordinate, in 1/amu per cm^-1."""
        _, density = rate_spectrum(signal, interval, resolution)
        return (density / slope)[shown] / (units.fs**2 * units.kB * temperature)

    if dipole is not None:
        table[INFRARED] = infrared_intensity(change(dipole))
    if polarizability is not None:
        polarizability = np.asarray(polarizability, np.float64)
        activity = RamanActivity(change(isotropic(polarizability)), change(anisotropic(polarizability)))
        table[ISOTROPIC], table[ANISOTROPIC] = activity.isotropic, activity.anisotropic
        for name, part in ((PARALLEL, activity.parallel), (PERPENDICULAR, activity.perpendicular)):
            cross_section = raman_cross_section(part, table[WAVENUMBER], temperature, laser)
            # its 1 / v^2 would amplify the leakage of the window near v = 0
            table[name] = np.where(table[WAVENUMBER] < resolution, np.nan, cross_section)
    return table


def without(names: Collection[str], who: str) -> str:
    """Return a line that names the unavailable spectra; nothing if all are available.

    Parameters
    ----------
    names : of the properties that there are
    who : would have to give the others, with a verb: "the model has"
    """
    missing = {"dipole": "no infrared spectrum", "polarizability": "no Raman spectrum"}
    return "; ".join(f"{spectrum} ({who} no {name})" for name, spectrum in missing.items() if name not in names)


def draw(table: dict[str, np.ndarray], harmonic: Harmonic | None, temperature: float, path: Path) -> None:
    """Draw the spectra below each other, with harmonic analysis as sticks beneath each.

    Parameters
    ----------
    table : from `compute`
    harmonic : modes of the same molecule
    temperature : K
    path : of a picture
    """
    modes = np.empty(0) if harmonic is None else harmonic.wavenumbers
    panels: list[tuple[str, list[str], np.ndarray | None]] = [("density of states", [VDOS], np.ones(len(modes)))]
    if INFRARED in table:
        panels.append(("infrared", [INFRARED], None if harmonic is None else harmonic.infrared))
    if ISOTROPIC in table:
        total = None if harmonic is None or harmonic.raman is None else harmonic.raman.total
        panels.append(("Raman activity", [ISOTROPIC, ANISOTROPIC], total))
        panels.append(("Raman", [PARALLEL, PERPENDICULAR], None))
    figure = Figure(figsize=(9, 2.4 * len(panels) + 0.8), layout="constrained")
    rows = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    wavenumbers = table[WAVENUMBER]
    for axes, (title, names, sticks) in zip(rows, panels):
        for name in names:
            axes.plot(wavenumbers, table[name], linewidth=1, label=name.split(" / ")[0])
        axes.set_title(title, loc="left", fontsize=10)
        axes.set_ylabel(" / ".join(names[0].split(" / ")[1:]))
        if len(names) > 1:
            axes.legend(fontsize=8)
        axes.axhline(0, color="gray", linewidth=0.5)
        axes.grid(alpha=0.3)
        if sticks is not None and len(modes):
            depth = 0.3 * max(table[name].max() for name in names)
            axes.vlines(modes, -depth * sticks / (sticks.max() or 1.0), 0, color="tab:red", linewidth=1)
    visible = wavenumbers[table[VDOS] > 1e-3 * table[VDOS].max()]
    rows[-1].set(xlabel="wavenumber / cm$^{-1}$", xlim=(0, min(HIGHEST, 1.1 * visible.max())))
    beneath = "" if harmonic is None else "; beneath, upside down: harmonic analysis, relative heights"
    figure.suptitle(f"{temperature:g} K{beneath}", fontsize=10)
    figure.savefig(path, dpi=120)
