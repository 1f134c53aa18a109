"""Several trajectories of one molecule at once, in pieces that survive being killed."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ase import Atoms, units
from ase.md.langevin import Langevin
from ase.md.verlet import VelocityVerlet
from tqdm import tqdm

from dimenet_tf.errors import UserError
from dimenet_tf.md.batched import Batched
from dimenet_tf.md.harmonic import rigid_motions
from dimenet_tf.md.velocities import at, count_vibrations, thermalize
from dimenet_tf.predictor import Predictor
from dimenet_tf.runs.files import file_to_disk, replace_text

FRICTION = 0.01  # 1/fs
PIECE = 500  # records between two checkpoints
JOB = "job.json"


class Settings(NamedTuple):
    """Settings of the dynamics. Together with model and molecule, they determine every number."""

    temperature: float = 300.0
    """K."""
    picoseconds: float = 20.0
    """Length of every trajectory at constant energy."""
    timestep: float = 0.5
    """fs."""
    stride: int = 2
    """Steps from record to record."""
    trajectories: int = 8
    equilibration: float = 2.0
    """ps of Langevin dynamics before."""
    seed: int = 0

    def check(self) -> None:
        """Raise a UserError for values that make no sense."""
        for name in ("temperature", "picoseconds", "timestep"):
            if not getattr(self, name) > 0:
                raise UserError(f"--{name} {getattr(self, name):g} must be greater than 0")
        for name in ("stride", "trajectories"):
            if getattr(self, name) < 1:
                raise UserError(f"--{name} {getattr(self, name)} must be at least 1")
        if self.equilibration < 0 or self.seed < 0:
            raise UserError("--equilibration and --seed must not be negative")

    @property
    def records(self) -> int:
        return max(1, round(1000 * self.picoseconds / (self.timestep * self.stride)))


class Recording(NamedTuple):
    """Quantities recorded at constant energy, every `stride` steps."""

    energies: np.ndarray
    """(records, trajectories) float64, eV: potential and kinetic."""
    temperatures: np.ndarray
    """(records, trajectories), K, of the vibrations."""
    velocities: np.ndarray
    """(records, trajectories, atoms, 3) float32, Ang/fs."""
    dipole: np.ndarray | None
    """(records, trajectories, 3), e*Ang; None for a model without."""
    polarizability: np.ndarray | None
    """(records, trajectories, 3, 3), a0^3; None for a model without."""


class Piece(NamedTuple):
    """A part of the run, from one checkpoint to the next."""

    number: int
    steps: int
    stride: int
    thermostat: bool


def pieces(settings: Settings) -> Iterator[Piece]:
    """Yield the parts of a run in order."""
    number = 0
    for records, thermostat in (
        (round(1000 * settings.equilibration / (settings.timestep * settings.stride)), True),
        (settings.records, False),
    ):
        for start in range(0, records, PIECE):
            some = min(PIECE, records - start)
            yield Piece(number, some * settings.stride, settings.stride, thermostat)
            number += 1


def run(
    predictor: Predictor, atoms: Atoms, settings: Settings, folder: Path, job: dict, show: bool = True
) -> Recording:
    """Run trajectories at constant energy, each from an own thermalised start without translation and rotation.

    Every piece begins from the numbers that the piece before left in its file, with random numbers of its own: the same
    call resumes where it stopped, with the same result.

    Parameters
    ----------
    predictor : with forces
    atoms : relaxed molecule; a resumed run keeps the positions that it began with, since relaxing again gives them
        to some digits only
    settings : of the dynamics
    folder : for the pieces
    job : what else determines the numbers, the model and the molecule; JSON
    show : a progress bar

    Raises
    ------
    UserError
        If the folder holds another run, or a trajectory flies apart.
    """
    settings.check()
    folder.mkdir(parents=True, exist_ok=True)
    atoms = at(atoms, _claim(folder, {**job, **settings._asdict()}, atoms.positions))
    todo = list(pieces(settings))
    done = 0
    while done < len(todo) and _path(folder, done).exists():
        done += 1
    steps = [piece.steps for piece in todo]
    with tqdm(
        total=sum(steps), initial=sum(steps[:done]), desc="dynamics", unit="step", dynamic_ncols=True, disable=not show
    ) as bar:
        for piece in todo[done:]:
            _run_piece(predictor, atoms, settings, piece, todo, folder, bar)
    recorded = [np.load(_path(folder, piece.number)) for piece in todo if not piece.thermostat]
    arrays: dict[str, Any] = {
        name: np.concatenate([part[name] for part in recorded]) if name in recorded[0].files else None
        for name in Recording._fields
    }
    return Recording(**arrays)


def _path(folder: Path, number: int) -> Path:
    return folder / f"{number:05d}.npz"


def _claim(folder: Path, job: dict, start: np.ndarray) -> np.ndarray:
    """Write what the folder is for, or see that it is for the same; return the positions that all starts from."""
    path = folder / JOB
    job = json.loads(json.dumps(job))
    if not path.exists():
        replace_text(path, json.dumps({**job, "start": start.tolist()}, indent=1))
        return start
    found = json.loads(path.read_text())
    start = np.array(found.pop("start"))
    other = [key for key in {**found, **job} if found.get(key) != job.get(key)]
    if other:
        raise UserError(
            f"{folder} holds a run with other {', '.join(sorted(other))}: remove that folder, or choose another output"
        )
    return start


def _start(atoms: Atoms, settings: Settings) -> list[Atoms]:
    """Return copies with velocities of their own; half of their kinetic energy will go into the potential."""
    rng = np.random.default_rng([settings.seed, 0])
    starts = [at(atoms, atoms.positions) for _ in range(settings.trajectories)]
    for one in starts:
        thermalize(one, 2 * settings.temperature, rng)
    return starts


def remove_rigid_motion(system: Atoms, count: int, vibrations: int) -> None:
    """Stop translation and rotation of every copy, which leaves `vibrations` degrees of freedom.

    The rotation of a linear molecule about its axis is none: bent for a moment, it turns as it vibrates.
    """
    momenta = []
    for one in range(count):
        copy = system[one * (len(system) // count) : (one + 1) * (len(system) // count)]
        rigid = rigid_motions(copy, 3 * len(copy) - vibrations)
        weights = np.sqrt(copy.get_masses())[:, None]
        weighted = (copy.get_momenta() / weights).ravel()
        momenta.append((weighted - rigid.T @ (rigid @ weighted)).reshape(-1, 3) * weights)
    system.set_momenta(np.concatenate(momenta))


def _run_piece(
    predictor: Predictor, atoms: Atoms, settings: Settings, piece: Piece, todo: list[Piece], folder: Path, bar: tqdm
) -> None:
    count = settings.trajectories
    batch = Batched(predictor, _start(atoms, settings) if piece.number == 0 else [atoms] * count)
    system = batch.atoms
    if piece.number > 0:
        with np.load(_path(folder, piece.number - 1)) as before:
            system.positions = before["positions"]
            system.set_momenta(before["momenta"])
    dt = settings.timestep * units.fs
    if piece.thermostat:
        rng = np.random.default_rng([settings.seed, 1 + piece.number])
        dynamics = Langevin(
            system, dt, temperature_K=settings.temperature, friction=FRICTION / units.fs, fixcm=False, rng=rng
        )
    else:
        if piece.number == 0 or todo[piece.number - 1].thermostat:
            remove_rigid_motion(system, count, count_vibrations(atoms))
        dynamics = VelocityVerlet(system, dt)
    rows = []
    for _ in range(piece.steps // piece.stride):
        try:
            dynamics.run(piece.stride)
        except UserError as error:  # positions are no numbers any more, or atoms fell together
            raise UserError(
                f"a trajectory has flown apart ({error}, counted from 0): "
                "a shorter --timestep or a lower --temperature may help, or the model is not fit for dynamics"
            ) from None
        if not piece.thermostat:
            rows.append(_record(batch, count, count_vibrations(atoms)))
        bar.update(piece.stride)
    recorded = {name: np.array(values) for name, values in zip(Recording._fields, zip(*rows)) if values[0] is not None}
    _write(_path(folder, piece.number), positions=system.positions, momenta=system.get_momenta(), **recorded)


def _record(batch: Batched, count: int, vibrations: int) -> tuple:
    """Return one row of a `Recording`."""
    predicted, system = batch.predicted, batch.atoms
    velocities = system.get_velocities().reshape(count, -1, 3)
    masses = system.get_masses().reshape(count, -1, 1)
    kinetic = 0.5 * (masses * velocities**2).sum(axis=(1, 2))
    return (
        batch.energies + kinetic,
        2 * kinetic / (vibrations * units.kB),
        (velocities * units.fs).astype(np.float32),
        predicted.get("dipole"),
        predicted.get("polarizability"),
    )


def _write(path: Path, **arrays: Any) -> None:
    """Write arrays so that the file is whole or not there."""
    new = path.with_name(f".{path.stem}.{os.getpid()}.npz")
    try:
        np.savez(new, **arrays)
        file_to_disk(new)
        new.replace(path)
    finally:
        new.unlink(missing_ok=True)


def drift(recording: Recording, interval: float, atoms: int) -> float:
    """Return the slope of the total energy against time of the trajectory where it is largest, meV/atom/ps.

    Parameters
    ----------
    interval : fs between records
    atoms : of the molecule
    """
    times = np.arange(len(recording.energies)) * interval / 1000
    if len(times) < 2:
        return 0.0
    return float(1000 * np.abs(np.polyfit(times, recording.energies, 1)[0]).max() / atoms)
