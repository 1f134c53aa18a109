"""Prediction in pieces, which are kept in a folder next to the target until all are finished and joined.

A file that has its final name is complete: files are written under unique names, flushed to the disk and renamed.
So a process may be killed at any moment, and several may work on the same job without knowing of each other.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from dimenet_tf.bulk import formats
from dimenet_tf.errors import UserError
from dimenet_tf.predictor import Predictor
from dimenet_tf.runs.catalog import DESCRIPTION, WEIGHTS, find_predictor
from dimenet_tf.runs.files import folder_to_disk
from dimenet_tf.structures.molecules import Molecules
from dimenet_tf.structures.streams import count_molecules
from dimenet_tf.version import __version__

FORMAT = 1
JOB, DONE = "job.json", "done.json"


class JobGone(Exception):
    """The folder of the job is no longer there: another process has joined the pieces, or someone has removed it."""


class Job:
    """Prediction job with its finished pieces.

    Parameters
    ----------
    model : as `dimenet_tf.load`
    source, target : files
    batch_size : molecules computed at once; the last digits of a prediction may depend on it
    size : molecules of a piece
    domain, length_unit : as `predict_file`
    """

    def __init__(
        self,
        model: str | Path,
        source: Path,
        target: Path,
        batch_size: int,
        size: int,
        domain: str = "flag",
        length_unit: str | None = None,
    ) -> None:
        self.model, self.source, self.target, self.batch_size, self.size = model, source, target, batch_size, size
        self.domain, self.length_unit = domain, length_unit
        self.folder = target.with_name(f".{target.name}.parts")
        self.molecules = 0
        self._target_before = _version(target)
        self._description = {
            "format": FORMAT,
            "dimenet_tf": __version__,
            "model": self.checksum_of_model(),
            **_describe_input(source),
            "batch size": batch_size,
            "piece": size,
            "domain": domain,
            "length unit": length_unit,
        }

    def checksum_of_model(self) -> str:
        """Return a SHA-256 of weights and description."""
        folder = find_predictor(self.model)
        content = [(folder / name).read_bytes() for name in (DESCRIPTION, WEIGHTS) if (folder / name).exists()]
        return hashlib.sha256(b"".join(content)).hexdigest()[:16]

    def assert_same_model(self) -> None:
        """Raise a UserError if the model is no longer the one that the pieces belong to: a run may be training."""
        if self.checksum_of_model() != self._description["model"]:
            raise UserError(f"{self.model} was changed while it was read: start again")

    def begin(self) -> bool:
        """Make the folder if there is none. Return False if the job was finished, and only its folder was left."""
        finished = (self.folder / DONE).exists() and not self._differences(DONE)  # killed while removing the folder
        if not (self.folder / JOB).exists() or (self._differences(JOB) and not any(self.folder.glob("[0-9]*"))):
            shutil.rmtree(self.folder, ignore_errors=True)  # none, or another job of which nothing was finished
        if not finished and not self.folder.exists():
            self._make_folder()
        return not finished

    def open(self) -> None:
        """Resume a job whose folder exists.

        Raises
        ------
        UserError
            If the folder holds finished pieces of another job.
        """
        differences = self._differences(JOB)
        if differences:
            raise UserError(
                f"{self.folder} holds finished pieces of another prediction ({'; '.join(differences)}): "
                "remove that folder, or choose another output"
            )
        self.molecules = self._read(JOB)["molecules"]

    def _make_folder(self) -> None:
        """Make the folder, never without its description: of processes that begin at the same time one does it."""
        new = self.folder.with_name(f"{self.folder.name}.{uuid.uuid4().hex}")
        molecules = count_molecules(self.source)
        new.mkdir()
        try:
            with (new / JOB).open("w") as file:
                json.dump({**self._description, "molecules": molecules}, file, indent=1)
                file.flush()
                os.fsync(file.fileno())
            with contextlib.suppress(OSError):  # there already, and not empty
                new.rename(self.folder)
        finally:
            shutil.rmtree(new, ignore_errors=True)

    def _read(self, name: str) -> dict:
        try:
            return json.loads((self.folder / name).read_text())
        except FileNotFoundError:
            raise JobGone from None
        except (OSError, json.JSONDecodeError) as error:
            raise UserError(f"{self.folder / name} cannot be read ({error}): remove the folder") from None

    def _differences(self, name: str) -> list[str]:
        found = self._read(name)
        ours = self._description
        return [f"{key}: {found.get(key)} there, {ours[key]} here" for key in ours if found.get(key) != ours[key]]

    def __len__(self) -> int:
        """Return the number of pieces; no molecules are one empty piece."""
        return max(1, -(-self.molecules // self.size))

    def molecules_of(self, piece: int) -> int:
        """Return how many molecules a piece has."""
        return min(self.size, self.molecules - piece * self.size)

    def path(self, piece: int) -> Path:
        return self.folder / f"{piece:06d}{self.target.suffix}"

    def missing(self, share: range) -> list[int]:
        """Return the pieces of a share that are not finished."""
        return [piece for piece in share if not self.path(piece).exists()]

    def assert_there(self) -> None:
        """Raise JobGone if the folder is not, or no longer, that of this job."""
        if self._differences(JOB):
            raise JobGone

    def publish(self, name: str, write: Callable[[BinaryIO], object]) -> None:
        """Write a file of the folder. Raises JobGone if the folder is not, or no longer, that of this job."""
        try:
            self._publish(self.folder / name, write)
        except FileNotFoundError:
            raise JobGone from None

    def _publish(self, path: Path, write: Callable[[BinaryIO], object]) -> None:
        unfinished = self.folder / f".{uuid.uuid4().hex}"
        try:
            with unfinished.open("wb") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
            self.assert_there()
            unfinished.replace(path)
        finally:
            unfinished.unlink(missing_ok=True)

    def publish_piece(self, piece: int, molecules: Molecules, results: list, predictor: Predictor) -> None:
        """Write a piece, and before it the reasons why some of its molecules have no prediction."""
        errors = [result for result in results if isinstance(result, str)]
        if errors:
            self.publish(self._errors(piece).name, lambda file: file.write("".join(f"{e}\n" for e in errors).encode()))
        outside = sum(not result.get(formats.IN_DOMAIN, True) for result in results if isinstance(result, dict))
        if outside:
            self.publish(self._outside(piece).name, lambda file: file.write(str(outside).encode()))
        suffix = self.target.suffix
        self.publish(self.path(piece).name, lambda file: formats.write(file, suffix, molecules, results, predictor))

    def _errors(self, piece: int) -> Path:
        return self.folder / f"{piece:06d}.errors"

    def _outside(self, piece: int) -> Path:
        return self.folder / f"{piece:06d}.outside"

    def outside(self) -> int:
        """Return how many predicted molecules lie outside of the model's domain."""
        paths = (self._outside(piece) for piece in range(len(self)))
        return sum(int(path.read_text()) for path in paths if path.exists())

    def errors(self) -> tuple[int, str]:
        """Return how many molecules have no prediction, and why the first one has none."""
        count, first = 0, ""
        for piece in range(len(self)):
            if self._errors(piece).exists():
                lines = self._errors(piece).read_text().splitlines()
                count, first = count + len(lines), first or lines[0]
        return count, first

    def join(self) -> None:
        """Join the pieces into the target and remove the folder. Of several processes all write the same bytes."""
        pieces = [self.path(piece) for piece in range(len(self))]
        try:
            self._publish(self.target, lambda file: formats.join(file, self.target.suffix, pieces))
            folder_to_disk(self.target.parent)
            (self.folder / JOB).rename(self.folder / DONE)  # from here on there is nothing to resume
        except FileNotFoundError:
            raise JobGone from None
        for path in self.folder.iterdir():
            if path.name != DONE:
                path.unlink(missing_ok=True)
        shutil.rmtree(self.folder, ignore_errors=True)

    def finished_elsewhere(self) -> bool:
        """Whether a new target has come since this job was opened."""
        return _version(self.target) not in (None, self._target_before)


def _describe_input(path: Path) -> dict:
    """Identify a file at a cost that does not depend on its size."""
    if not path.exists():
        raise UserError(f"no such file: {path}")
    stat, ends = path.stat(), hashlib.sha256()
    with path.open("rb") as file:
        ends.update(file.read(2**16))
        file.seek(max(0, stat.st_size - 2**16))
        ends.update(file.read())
    return {
        "input": path.name,
        "bytes of the input": stat.st_size,
        "time of the input": int(stat.st_mtime),
        "ends of the input": ends.hexdigest()[:16],
    }


def _version(path: Path) -> tuple[int, int] | None:
    try:
        stat = path.stat()
    except FileNotFoundError:
        return None
    return stat.st_ino, stat.st_mtime_ns
