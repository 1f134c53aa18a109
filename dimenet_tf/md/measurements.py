"""Measurements of a certificate, made on the model itself.

Every function returns rows by name: a `value`, its `unit` and the `bound` that it must not pass (None: there is none).
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tensorflow as tf
from ase import Atoms, units
from ase.md.md import MolecularDynamics
from ase.md.nose_hoover_chain import MTKNPT
from ase.md.velocitydistribution import Stationary
from ase.md.verlet import VelocityVerlet
from ase.optimize import FIRE
from scipy.spatial.transform import Rotation
from tqdm import tqdm

from dimenet_tf.errors import UserError
from dimenet_tf.md.calculator import DimeNetCalculator
from dimenet_tf.md.velocities import count_vibrations, temperature_of, thermalize
from dimenet_tf.predictor import Predictor
from dimenet_tf.structures.container import DataContainer
from dimenet_tf.structures.molecules import Molecules, join_atoms

FEWEST = 16  # atoms at constant pressure


def predict(predictor: Predictor, frames: list[Atoms]) -> tuple[np.ndarray, np.ndarray]:
    """Return energies (frames,) and forces (frames, atoms, 3) of geometries of one molecule."""
    assert predictor.energy is not None  # certificates are of force fields
    result = predictor.predict(frames)
    return result[predictor.energy], result["forces"].astype(np.float64)


def moved(atoms: Atoms, positions: np.ndarray) -> Atoms:
    """Return the structure with other positions."""
    return Atoms(atoms.numbers, positions, cell=atoms.cell, pbc=atoms.pbc)


def transformed(atoms: Atoms, matrix: np.ndarray) -> Atoms:
    """Return the structure with positions and lattice vectors, as rows, times a matrix."""
    return Atoms(atoms.numbers, atoms.positions @ matrix, cell=atoms.cell.array @ matrix, pbc=atoms.pbc)


def finite_differences(predictor: Predictor, frames: list[Atoms], step: float = 2e-4) -> dict:
    """Compare forces with differences of energies: every coordinate of every frame, in float64, fourth order."""
    worst, square = 0.0, 0.0
    for atoms in frames:
        size = 3 * len(atoms)
        directions = np.eye(size).reshape(size, -1, 3) * step
        energies = [
            predict(predictor, [moved(atoms, atoms.positions + k * d) for d in directions])[0] for k in (-2, -1, 1, 2)
        ]
        numeric = -(energies[0] - 8 * energies[1] + 8 * energies[2] - energies[3]) / (12 * step)
        forces = predict(predictor, [atoms])[1].ravel()
        worst = max(worst, float(np.abs(forces - numeric).max()))
        square = max(square, float(np.mean(forces**2)))
    return {"value": worst / np.sqrt(square), "unit": "of the largest RMS force", "bound": 1e-6}


def symmetries(predictor: Predictor, frames: list[Atoms], seed: int = 0) -> dict[str, dict]:
    """Rotate, reflect, translate and permute: how much the energy changes, and the forces beyond turning along."""
    rng = np.random.default_rng(seed)
    double = predictor.dtype == "float64"
    errors: dict[str, np.ndarray] = {
        name: np.zeros(2) for name in ("rotation", "reflection", "translation", "permutation")
    }
    mirror = np.array([-1.0, 1.0, 1.0])
    for atoms in frames:
        turn = Rotation.random(random_state=rng.integers(1 << 31)).as_matrix()
        order = rng.permutation(len(atoms))
        changed: dict[str, tuple[Atoms, Callable[..., np.ndarray]]] = {
            "rotation": (transformed(atoms, turn.T), lambda f, turn=turn: f @ turn.T),
            "reflection": (transformed(atoms, np.diag(mirror)), lambda f: f * mirror),
            "translation": (moved(atoms, atoms.positions + rng.normal(size=3)), lambda f: f),
            "permutation": (atoms[order.tolist()], lambda f, order=order: f[order]),
        }
        energy, forces = predict(predictor, [atoms])
        for name, (other, expected) in changed.items():
            e, f = predict(predictor, [other])
            difference = abs(e[0] - energy[0]), np.abs(f[0] - expected(forces[0])).max()
            errors[name] = np.maximum(errors[name], difference)
    bounds = (1e-8, 1e-8) if double else (1e-3, 1e-3)
    return {
        f"{name}, {what}, {predictor.precision}": {"value": float(error), "unit": unit, "bound": bound}
        for name, pair in errors.items()
        for what, unit, error, bound in zip(("energy", "forces"), ("eV", "eV/Ang"), pair, bounds)
    }


def work(predictor: Predictor, frames: list[Atoms], length: float = 0.15, intervals: int = 256, seed: int = 0) -> dict:
    """Compare energies with the work of the forces on a path through each frame: finds jumps, in float64.

    On the path every coordinate moves by a random amount of the order of `length` (Angstrom). Each of its intervals is
    integrated by Simpson's rule, which leaves some 1e-7 eV in the frames of ethanol.
    """
    rng, worst = np.random.default_rng(seed), 0.0
    for atoms in frames:
        direction = rng.normal(scale=length, size=(len(atoms), 3))
        points = np.linspace(-0.5, 0.5, 2 * intervals + 1)
        energies, forces = predict(predictor, [moved(atoms, atoms.positions + t * direction) for t in points])
        slopes = -np.sum(forces * direction, axis=(1, 2))  # dE/dt
        integrals = (slopes[:-2:2] + 4 * slopes[1::2] + slopes[2::2]) / (6 * intervals)
        worst = max(worst, float(np.abs(np.diff(energies[::2]) - integrals).max()))
    return {"value": worst, "unit": "eV", "bound": 1e-5}


def cutoff(predictor: Predictor, atoms: Atoms, step: float = 1e-4) -> dict[str, dict]:
    """Let a copy of the molecule leave: jumps where the closest pair crosses a cutoff, and what is left beyond all.

    In float64. The jumps are differences over a distance of twice `step`, which a smooth function has too, less the
    differences over the same distance farther out: beyond one cutoff atoms may attract each other up to the next.
    """
    radii = predictor.model.cutoffs
    x = atoms.positions[:, 0]

    def at(distance: float) -> Atoms:
        """The two copies, the first atom of one at a distance along x from the last of the other: the closest pair."""
        shift = atoms.positions[x.argmax()] - atoms.positions[x.argmin()] + [distance, 0, 0]
        return moved(atoms + atoms, np.concatenate([atoms.positions, atoms.positions + shift]))

    jumps = []  # of energy and forces at each cutoff
    for radius in radii:
        points = zip(*(predict(predictor, [at(radius + k * step)]) for k in (-1, 1, 3)))
        jumps.append([np.abs((outside - inside) - (farther - outside)).max() for inside, outside, farther in points])
    of_energy, of_forces = np.max(jumps, axis=0)
    beyond, alone = predict(predictor, [at(radii[-1] + 1.0)]), predict(predictor, [atoms])
    return {
        "cutoff, change of the energy across": {
            "value": float(of_energy),
            "unit": f"eV over {2 * step:g} Ang",
            "bound": 1e-8,
        },
        "cutoff, change of the forces across": {
            "value": float(of_forces),
            "unit": f"eV/Ang over {2 * step:g} Ang",
            "bound": 1e-6,
        },
        "cutoff, force beyond": {
            "value": float(np.abs(beyond[1][0] - np.concatenate([alone[1][0]] * 2)).max()),
            "unit": "eV/Ang",
            "bound": 1e-9,
        },
        "cutoff, energy beyond": {
            "value": float(abs(beyond[0][0] - 2 * alone[0][0])),
            "unit": "eV",
            "bound": 1e-8,
        },
    }


def lattice(predictor: Predictor, frames: list[Atoms], step: float = 1e-4) -> dict[str, dict]:
    """Check crystals in float64: stress against differences of energies, other cells of the lattice, supercells.

    The stress is compared for all six strains by differences of fourth order.
    """
    errors = dict.fromkeys(("stress", "other cell", "supercell"), 0.0)
    square = 1e-30
    other = np.array([[1, 0, 0], [1, 1, 0], [0, -1, 1]])
    for atoms in frames:
        energy = predict(predictor, [atoms])[0][0]
        if atoms.pbc.all():
            same = moved(atoms, atoms.positions)
            same.set_cell(other @ atoms.cell.array)
            errors["other cell"] = max(errors["other cell"], abs(predict(predictor, [same])[0][0] - energy))
        copies = [2 if periodic else 1 for periodic in atoms.pbc]
        repeated = predict(predictor, [atoms.repeat(copies)])[0][0] / np.prod(copies)
        errors["supercell"] = max(errors["supercell"], abs(repeated - energy) / len(atoms))
        if predictor.model.direct_forces or atoms.cell.volume == 0:
            continue
        stress = predictor.predict(atoms)["stress"]
        square = max(square, float(np.mean(stress**2)))
        for i, j in ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1)):
            strain = np.zeros((3, 3))
            strain[i, j] += step / 2
            strain[j, i] += step / 2
            strained = [transformed(atoms, np.eye(3) + factor * strain) for factor in (-2, -1, 1, 2)]
            a, b, c, d = predict(predictor, strained)[0]
            numeric = (a - 8 * b + 8 * c - d) / (12 * step * atoms.cell.volume)
            errors["stress"] = max(errors["stress"], abs(float(stress[i, j]) - numeric))
    return {
        "stress against finite differences, float64": {
            "value": errors["stress"] / np.sqrt(square),
            "unit": "of the largest RMS stress",
            "bound": 1e-6,
        },
        "another cell of the same lattice, energy": {"value": errors["other cell"], "unit": "eV", "bound": 1e-8},
        "supercell, energy": {"value": errors["supercell"], "unit": "eV/atom", "bound": 1e-8},
    }


def nve(
    predictor: Predictor, atoms: Atoms, picoseconds: float, temperature: float, timestep: float, seed: int = 0
) -> dict[str, dict]:
    """Run dynamics at constant energy from the relaxed geometry (velocity Verlet); the drift is a fitted slope."""
    atoms = atoms.copy()
    atoms.calc = DimeNetCalculator(predictor)
    FIRE(atoms, logfile=None).run(fmax=0.01, steps=1000)
    vibrations = count_vibrations(atoms)
    # half of the kinetic energy goes into the potential
    thermalize(atoms, 2 * temperature, np.random.default_rng(seed))
    atoms.set_momenta(atoms.get_momenta() * np.sqrt(2 * temperature / temperature_of(atoms, vibrations)))
    dynamics = VelocityVerlet(atoms, timestep * units.fs)
    rows, temperatures = _conservation(
        "NVE",
        dynamics,
        picoseconds,
        timestep,
        predictor.precision,
        atoms.get_total_energy,
        lambda: temperature_of(atoms, vibrations),
        fluctuation=5.0,
    )
    if temperatures:
        rows["NVE mean temperature"] = {"value": float(np.mean(temperatures)), "unit": "K", "bound": None}
    return rows


def npt(
    predictor: Predictor, atoms: Atoms, picoseconds: float, temperature: float, timestep: float, seed: int = 0
) -> dict[str, dict]:
    """Run a crystal at constant pressure and temperature, with a cell of any shape (ASE's `MTKNPT`).

    The pressure is that of the relaxed atoms in the given cell, so that the volume stays near that of the data. The
    conserved quantity contains the work of the stress on the cell. Small cells are repeated, because their volumes
    fluctuate too much.
    """
    repeats = int(np.ceil((FEWEST / len(atoms)) ** (1 / 3)))
    atoms = atoms.repeat(repeats)
    atoms.calc = DimeNetCalculator(predictor)
    FIRE(atoms, logfile=None).run(fmax=0.01, steps=1000)
    pressure = -float(np.trace(atoms.get_stress(voigt=False))) / 3
    # half of the kinetic energy goes into the potential
    widths = np.sqrt(atoms.get_masses() * units.kB * 2 * temperature)[:, None]
    atoms.set_momenta(widths * np.random.default_rng(seed).normal(size=(len(atoms), 3)))
    Stationary(atoms, preserve_temperature=False)
    dynamics = MTKNPT(
        atoms,
        timestep * units.fs,
        temperature_K=temperature,
        pressure_au=pressure,
        tdamp=100 * timestep * units.fs,
        pdamp=1000 * timestep * units.fs,
    )
    # of copper with an exact potential the drift is below 0.005 meV/atom/ps and the fluctuation below 0.01 meV/atom;
    # a stress that is 5 % too large makes it 0.6 meV/atom
    rows, volumes = _conservation(
        "NPT",
        dynamics,
        picoseconds,
        timestep,
        predictor.precision,
        dynamics.get_conserved_energy,
        atoms.get_volume,
        fluctuation=0.5,
    )
    if volumes:
        mean = float(np.mean(volumes)) / len(atoms)
        rows["NPT mean volume"] = {"value": mean, "unit": "Ang^3/atom", "bound": None}
    return rows


def _conservation(
    name: str,
    dynamics: MolecularDynamics,
    picoseconds: float,
    timestep: float,
    precision: str,
    conserved: Callable[[], float],
    observe: Callable[[], float],
    fluctuation: float,
) -> tuple[dict[str, dict], list[float]]:
    """Run dynamics; return the drift and the fluctuation of its conserved quantity, and what was observed meanwhile.

    Dynamics that fly apart have an infinite drift, and nothing observed. `fluctuation` is a bound, meV/atom.
    """
    steps = max(10, round(picoseconds * 1000 / timestep))
    bar = tqdm(total=steps, desc=name, unit="step", dynamic_ncols=True, mininterval=1.0)
    total: list[float] = []
    observed: list[float] = []

    def record() -> None:
        total.append(conserved())
        observed.append(observe())
        bar.update(dynamics.nsteps - bar.n)

    dynamics.attach(record, interval=max(1, steps // 2000))
    drift = {"value": float("inf"), "unit": "meV/atom/ps", "bound": 0.1}
    rows = {f"{name} drift ({picoseconds:g} ps, {timestep:g} fs, {precision})": drift}
    with bar:
        try:
            dynamics.run(steps)
        except (UserError, np.linalg.LinAlgError):  # flown apart: atoms fell together, positions or cell are no numbers
            return rows, []
    per_atom = 1000 * np.array(total) / len(dynamics.atoms)
    drift["value"] = float(abs(np.polyfit(np.linspace(0, picoseconds, len(per_atom)), per_atom, 1)[0]))
    rows[f"{name} fluctuation"] = {"value": float(per_atom.std()), "unit": "meV/atom", "bound": fluctuation}
    return rows, observed


def held_out(predictor: Predictor, data: DataContainer) -> dict[str, dict]:
    """Errors on frames that the model has not seen."""
    molecules = Molecules(data.N, data.Z, data.R, charge=data.charge, spin=data.spin, cells=data.cells)
    admitted = predictor.admission.admit(molecules)
    store = predictor.graph_store(*admitted[:3], *admitted.cell_arrays())
    predicted = predictor.named(predictor.predict_store(store, np.arange(len(data))))
    assert predictor.energy is not None
    energy = np.abs(predicted[predictor.energy] - data.target("energy"))
    forces = np.abs(predicted["forces"] - data.target("forces"))
    return {
        f"held-out forces, MAE ({len(data)} frames)": {"value": float(forces.mean()), "unit": "eV/Ang", "bound": None},
        "held-out forces, largest error": {"value": float(forces.max()), "unit": "eV/Ang", "bound": None},
        "held-out energies, MAE": {"value": float(energy.mean()), "unit": "eV", "bound": None},
    }


def exported(predictor: Predictor, frames: list[Atoms]) -> dict[str, dict]:
    """Compare eager execution with the model as it is exported and loaded again."""
    N = np.array([len(atoms) for atoms in frames])
    Z, R = (np.concatenate([getattr(atoms, name) for atoms in frames]) for name in ("numbers", "positions"))
    arrays = {
        "Z": tf.constant(Z, tf.int32),
        "R": tf.constant(R, predictor.dtype),
        "molecule_of_atom": tf.constant(np.repeat(np.arange(len(N)), N), tf.int32),
    }
    cells: tuple[np.ndarray, ...] = ()
    if any(atoms.pbc.any() for atoms in frames):
        cells = join_atoms(frames).cell_arrays()
        arrays |= {"cell": tf.constant(cells[0], predictor.dtype), "pbc": tf.constant(cells[1])}
    with tempfile.TemporaryDirectory() as folder:
        predictor.export(Path(folder, "1"))
        loaded = tf.saved_model.load(str(Path(folder, "1")))
        answer = loaded.signatures["flat"](**arrays)
    graph = predictor.graph_store(N, Z, R, *cells).batch(range(len(frames)))
    assert predictor.energy is not None
    eager = predictor.named(predictor.compute(graph.to_tensors()))
    return {
        f"eager against SavedModel, {name}, {predictor.precision}": {
            "value": float(np.abs(eager[name] - answer[name]).max()),
            "unit": predictor.units[name],
            "bound": 1e-9 if predictor.dtype == "float64" else 1e-3,
        }
        for name in (predictor.energy, "forces")
    }
