"""Checkpoints, each of which is written completely or not at all."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import tensorflow as tf

from dimenet_tf.errors import UserError
from dimenet_tf.runs.files import file_to_disk, folder_to_disk

CHECKSUMS = "sha256.json"


class Checkpoints:
    """Folders `000007-step-500` below one of the run, ordered by their first number.

    Each is written under another name, with the checksums of its files, and renamed when all of it is on the disk: a
    process may be killed at any moment.

    Parameters
    ----------
    state : tf.train.Checkpoint
    folder : of the checkpoints
    keep : how many, of different steps; older ones are removed
    """

    def __init__(self, state: tf.train.Checkpoint, folder: Path, keep: int = 2) -> None:
        self.state, self.folder, self.keep = state, folder, keep

    def paths(self) -> list[Path]:
        """Return the checkpoints, oldest first."""
        found = (path for path in self.folder.glob("*-step-*") if path.name[0].isdigit())
        return sorted(found, key=lambda path: int(path.name.split("-")[0]))

    def save(self, step: int) -> None:
        """Write the state; raise a UserError where that fails (the disk is full), with the last one untouched."""
        before = self.paths()
        number = int(before[-1].name.split("-")[0]) + 1 if before else 0
        new = self.folder / "new"
        try:
            shutil.rmtree(new, ignore_errors=True)  # of a process that was killed
            new.mkdir(parents=True)
            self.state.write(str(new / "state"))
            (new / CHECKSUMS).write_text(json.dumps({file.name: sha256(file) for file in new.iterdir()}, indent=1))
            for file in new.iterdir():
                file_to_disk(file)
            new.rename(self.folder / f"{number:06d}-step-{step}")
            folder_to_disk(self.folder)
        except (OSError, tf.errors.OpError) as error:
            shutil.rmtree(new, ignore_errors=True)
            last = f"the last one, {before[-1]}, is whole" if before else "there is none yet"
            reason = " ".join(str(error).split())
            raise UserError(f"the checkpoint of step {step} could not be written: {reason}; {last}") from None
        newest = {path.name.split("-")[2]: path for path in self.paths()}  # of each step
        for old in set(self.paths()) - set(list(newest.values())[-self.keep :]):
            shutil.rmtree(old)

    def restore(self, remove_damaged: bool = True) -> list[str]:
        """Read the newest whole checkpoint, if there are any; return a line for each damaged one that was passed over.

        Parameters
        ----------
        remove_damaged : give them another name, so that they are in nobody's way, but not lost

        Raises
        ------
        UserError
            If all existing checkpoints are damaged; a run does not start again by itself.
        """
        paths = self.paths()
        damaged: list[str] = []
        for path in reversed(paths):
            reason = damage(path)
            if reason is None:
                self._read(path)
                for other in paths[paths.index(path) + 1 :] if remove_damaged else ():
                    other.rename(other.with_name(f"damaged-{other.name}"))
                return damaged
            damaged.append(f"{path} is damaged ({reason}) and passed over")
        if paths:
            raise UserError(f"{'; '.join(damaged)}. No other is left: to start anew, choose another run folder")
        return damaged

    def _read(self, path: Path) -> None:
        try:
            self.state.read(str(path / "state")).assert_consumed()
        except AssertionError as error:
            reason = str(error).split("\n")[0]
            raise UserError(f"{path} does not fit this model, or was written by another version: {reason}") from None


def damage(path: Path) -> str | None:
    """Describe the damage of a checkpoint; None if it is complete."""
    try:
        checksums = json.loads((path / CHECKSUMS).read_text())
        wrong = [name for name, checksum in checksums.items() if sha256(path / name) != checksum]
    except (OSError, ValueError) as error:
        return " ".join(str(error).split())
    return f"wrong checksum of {', '.join(wrong)}" if wrong else None


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
