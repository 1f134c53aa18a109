"""Vibrational spectra from a simulation with i-PI whose driver was `dimenet_tf.md.ipi`: ring polymers, any ensemble.

dimenet-tf ipi-spectra input.xml                                  # next to i-PI's output; into the folder spectra/

input.xml, i-PI's own, must have written `v_centroid` (format xyz), and may have written `extras` with extra_type
'dipole' and 'polarizability', all with the same stride. Of the beads' dipoles and polarizabilities the mean is taken.
What is computed: docs/spectra.md.
"""

from __future__ import annotations

if __name__ == "__main__":
    raise SystemExit("error: python -m dimenet_tf.md.ipi_spectra is no longer a command; use: dimenet-tf ipi-spectra")

import re
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

import ase.io
import numpy as np
from ase import units

from dimenet_tf.errors import UserError
from dimenet_tf.md import spectrum
from dimenet_tf.md.intensities import LASER
from dimenet_tf.md.spectra import RESOLUTION, write
from dimenet_tf.structures.formats import reading_with_ase

FEMTOSECONDS = {"femtosecond": 1.0, "picosecond": 1e3, "atomic_unit": 0.02418884326586}
KELVIN = {"kelvin": 1.0, "atomic_unit": units.Ha / units.kB}


class Simulation(NamedTuple):
    """What i-PI wrote."""

    velocities: np.ndarray
    """(times, 1, atoms, 3) of the centroids, in i-PI's unit."""
    masses: np.ndarray
    """(atoms,), amu, the elements' own."""
    dipole: np.ndarray | None
    """(times, 1, 3), e*Ang, mean over beads."""
    polarizability: np.ndarray | None
    """(times, 1, 3, 3), a0^3, mean over beads."""
    degrees: int
    """Of freedom."""
    timestep: float
    """fs."""
    stride: int
    """Steps between records."""
    temperature: float
    """K."""


def read(path: Path) -> Simulation:
    """Read input.xml and the output beside it.

    Raises
    ------
    UserError
        For what is missing or cannot be read.
    """
    try:
        root = ElementTree.parse(path).getroot()
    except (OSError, ElementTree.ParseError) as error:
        raise UserError(f"{path} cannot be read as i-PI's input: {error}") from None
    timestep = _quantity(root, path, "timestep", FEMTOSECONDS, "atomic_unit")
    temperature = _quantity(root, path, "ensemble/temperature", KELVIN, "atomic_unit")
    output = root.find("output")
    written = {} if output is None else {_content(node): node for node in output.findall("trajectory")}
    if "v_centroid" not in written:
        raise UserError(
            f"{path} has no centroids' velocities written: add <trajectory filename='velocities' stride='...'> "
            "v_centroid </trajectory> to its output and run i-PI again"
        )
    names = [name for name in ("v_centroid", *spectrum.PROPERTIES) if name in written]
    strides = {name: _integer(written[name].get("stride", "1"), f"{path}: stride of {name}") for name in names}
    if len(set(strides.values())) > 1:
        raise UserError(f"{path} writes with different strides: {strides}")
    prefix = path.with_name("i-pi" if output is None else output.get("prefix", "i-pi"))
    files = {name: prefix.with_name(f"{prefix.name}.{written[name].get('filename', 'out')}") for name in strides}
    velocities = Path(f"{files['v_centroid']}.xyz")
    if not velocities.exists():
        raise UserError(f"no such file: {velocities}")
    with reading_with_ase(velocities):
        frames = ase.io.read(velocities, index=":", format="xyz")
    first = _first_step(velocities, strides["v_centroid"])
    beads = {
        name: _mean_of_beads(_bead_files(files[name], root, path), size, strides[name], first)
        for name, size in spectrum.PROPERTIES.items()
        if name in files
    }
    times = min(len(frames), *(len(values) for values in beads.values())) if beads else len(frames)  # stopped: one less
    if "dipole" in beads:
        beads["dipole"] = beads["dipole"] * units.Bohr
    fixed = (root.findtext(".//motion/fixcom") or "True").strip() == "True"  # i-PI's default
    dipole, polarizability = (beads[name][:times, None] if name in beads else None for name in spectrum.PROPERTIES)
    return Simulation(
        np.array([frame.positions for frame in frames])[:times, None],
        frames[0].get_masses(),
        dipole,
        polarizability,
        3 * len(frames[0]) - (3 if fixed else 0),
        timestep,
        strides["v_centroid"],
        temperature,
    )


def _content(node: ElementTree.Element) -> str:
    """Return what a trajectory holds: i-PI's name, or of extras their type."""
    name = (node.text or "").strip().split("{")[0]
    return node.get("extra_type", "raw") if name == "extras" else name


def _quantity(root: ElementTree.Element, path: Path, name: str, known: dict[str, float], default: str) -> float:
    node = root.find(f".//{name}")
    unit = default if node is None else node.get("units", default)
    if node is None or unit not in known:
        raise UserError(f"{path}: <{name.split('/')[-1]}> must be there, in one of the units {', '.join(known)}")
    try:
        value = float(node.text or "")
    except ValueError:
        value = 0.0
    if not 0 < value < np.inf:
        raise UserError(f"{path}: <{name.split('/')[-1]}> {node.text} must be a number greater than 0")
    return value * known[unit]


def _integer(text: str | None, what: str) -> int:
    if text is None or not text.strip().isdigit() or int(text) < 1:
        raise UserError(f"{what}: '{text}' must be an integer greater than 0")
    return int(text)


def _first_step(path: Path, stride: int) -> int:
    """Return the step of a file's first record; raise a UserError unless the others follow it, one every `stride`."""
    with path.open() as file:
        steps = [int(found[1]) for line in file if (found := re.search(r"Step:\s*(\d+)", line))]
    if not steps:
        raise UserError(f"{path} names no steps: it is no output of i-PI")
    for before, after in zip(steps, steps[1:]):
        if after != before + stride:
            raise UserError(
                f"{path}: after step {before} comes {after} instead of {before + stride}: records are missing, or "
                "a run that was restarted has written some twice"
            )
    return steps[0]


def _bead_files(stem: Path, root: ElementTree.Element, path: Path) -> list[Path]:
    """Return the files of all beads; there may be others, of a run with another number of beads."""
    node = next((node for name in ("initialize", "beads") for node in root.iter(name) if node.get("nbeads")), None)
    if node is None:
        raise UserError(f"{path} does not say the number of beads: <initialize nbeads='...'>")
    count = _integer(node.get("nbeads"), f"{path}: nbeads")
    found = [stem.with_name(f"{stem.name}_{bead:0{len(str(count))}d}") for bead in range(count)]
    missing = [str(file) for file in found if not file.exists()]
    if missing:
        raise UserError(f"no such file: {missing[0]} ({len(missing)} of {count} beads' files are missing)")
    return found


def _mean_of_beads(paths: list[Path], size: tuple[int, ...], stride: int, first: int) -> np.ndarray:
    """Return the mean over the beads' files, (times, *size)."""
    beads = []
    for path in paths:
        if _first_step(path, stride) != first:
            raise UserError(f"{path} does not begin with step {first}, as the velocities do")
        try:
            beads.append(np.loadtxt(path, comments="#").reshape(-1, *size))
        except ValueError as error:
            raise UserError(f"{path}: {error}") from None
    times = min(map(len, beads))
    return np.mean([values[:times] for values in beads], axis=0)


def simulated_spectra(path: Path, folder: Path, resolution: float = RESOLUTION, laser: float = LASER) -> None:
    """Compute the spectra of a finished simulation and write them into a folder.

    Parameters
    ----------
    path : i-PI's input file, with its output next to it
    folder : of what is written
    resolution, laser : as in `molecular_spectra`
    """
    found = read(path)
    interval = found.timestep * found.stride
    spectrum.check(resolution, laser, len(found.velocities) * interval, interval)
    has = [name for name in spectrum.PROPERTIES if getattr(found, name) is not None]
    missing = spectrum.without(has, "i-PI wrote")
    if missing:
        print(missing)
    table = spectrum.compute(
        found.velocities,
        found.masses,
        found.dipole,
        found.polarizability,
        found.degrees,
        interval,
        found.timestep,
        found.temperature,
        resolution,
        laser,
    )
    folder.mkdir(parents=True, exist_ok=True)
    about = {
        "i-PI": str(path),
        "temperature / K": found.temperature,
        "time / ps": len(found.velocities) * interval / 1000,
        "interval / fs": interval,
        "resolution / cm^-1": resolution,
        "laser / nm": laser,
    }
    write(table, None, found.temperature, about, folder)
