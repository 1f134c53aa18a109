"""A run's folder: everything needed to understand, continue or use the run."""

from __future__ import annotations

import contextlib
import csv
import importlib.metadata
import json
import platform
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import filelock
import yaml

from dimenet_tf.errors import UserError
from dimenet_tf.runs.files import file_to_disk, replace_text
from dimenet_tf.structures.checks import Bad
from dimenet_tf.version import __version__

PACKAGES = ("tensorflow", "tensorflow-addons", "keras", "tf-keras", "numpy", "scipy", "sympy", "sacred", "h5py", "ase")


FIRST_RATE = 1e-3  # training.learning_rate of a run of version 0.1 that does not name one


class RunFolder:
    """Names and formats of the files of a run.

    config.yaml, versions.json, data.json, split.npz, dropped.csv (where molecules were), metrics.csv, test.json, ...;
    best/ (the predictor), checkpoints/, tensorboard/, plots/, sacred/.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.config_file = self.path / "config.yaml"
        self.data_file = self.path / "data.json"
        self.split_file = self.path / "split.npz"
        self.dropped_file = self.path / "dropped.csv"
        self.metrics_file = self.path / "metrics.csv"
        self.best = self.path / "best"
        self.checkpoints = self.path / "checkpoints"
        self.tensorboard = self.path / "tensorboard"
        self.plots = self.path / "plots"
        self.sacred = self.path / "sacred"

    @classmethod
    def new(cls, logdir: str | Path) -> RunFolder:
        """Make the next numbered folder: runs/1, runs/2, ..."""
        logdir = Path(logdir)
        logdir.mkdir(parents=True, exist_ok=True)
        number = max((int(p.name) for p in logdir.iterdir() if p.name.isdigit()), default=0)
        while True:
            number += 1
            try:
                (logdir / str(number)).mkdir()
            except FileExistsError:  # another run started at the same time took it
                continue
            return cls(logdir / str(number))

    def describe(self, config: dict, data: dict) -> None:
        """Write configuration, package versions and a description of the data."""
        self.path.mkdir(parents=True, exist_ok=True)
        self.write_config(config)
        versions: dict[str, str | None] = {"python": platform.python_version(), "platform": platform.platform()}
        for package in ("dimenet-tf", *PACKAGES):
            try:
                versions[package] = importlib.metadata.version(package)
            except importlib.metadata.PackageNotFoundError:
                versions[package] = None  # used from a source tree, or without an optional package
        replace_text(self.path / "versions.json", json.dumps(versions, indent=1))
        replace_text(self.data_file, json.dumps(data, indent=1))

    def read_data_description(self) -> dict:
        """Read data.json."""
        return json.loads(self.data_file.read_text())

    def write_dropped(self, dropped: Sequence[Bad]) -> None:
        """Write dropped.csv: index in the data, id and reason of each molecule that was left out; none, no file."""
        self.dropped_file.unlink(missing_ok=True)
        if dropped:
            with self.dropped_file.open("w", newline="") as file:
                csv.writer(file).writerows([("index", "id", "reason"), *((b.index, b.id, b.reason) for b in dropped)])

    def write_config(self, config: dict) -> None:
        """Write the resolved configuration, with the version in whose meaning its keys are."""
        replace_text(self.config_file, yaml.safe_dump({"version": __version__, **config}, sort_keys=False))

    def read_config(self) -> dict:
        """Read the resolved configuration of the run, in the meaning that its keys have in this version."""
        if not self.config_file.exists():
            raise UserError(f"{self.path} is no run folder: it has no {self.config_file.name}")
        return upgraded({"version": "0.1.0", **yaml.safe_load(self.config_file.read_text())})

    def has_results(self) -> bool:
        """Return whether something has been trained here."""
        return self.metrics_file.exists() or self.best.exists()

    def append_metrics(self, row: dict[str, float]) -> None:
        """Add a line to metrics.csv; the first column must be `step`."""
        lines = self._metrics_lines()
        with self.metrics_file.open("a", newline="") as file:
            writer = csv.DictWriter(file, lines[0].split(",") if lines else list(row), lineterminator="\n")
            if not lines:
                writer.writeheader()
            writer.writerow(row)

    def read_metrics(self) -> list[dict[str, float]]:
        """Read metrics.csv."""
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(self._metrics_lines())]

    def _metrics_lines(self) -> list[str]:
        """Return the lines of metrics.csv; a last one that a killed process left unfinished does not count."""
        if not self.metrics_file.exists():
            return []
        return self.metrics_file.read_text().rpartition("\n")[0].splitlines()

    def forget_metrics_after(self, step: int) -> None:
        """Drop lines of steps that a resumed run will make again."""
        header, *rows = self._metrics_lines() or [""]
        rows = [row for row in rows if float(row.split(",")[0]) <= step]
        if rows:
            replace_text(self.metrics_file, "\n".join([header, *rows, ""]))
        else:
            self.metrics_file.unlink(missing_ok=True)

    def replace_best(self, write: Callable[[Path], None]) -> None:
        """Replace the files in best/ by those that `write(folder)` makes, each at once: there always is a model."""
        new = self.path / "best.new"
        shutil.rmtree(new, ignore_errors=True)
        write(new)
        self.best.mkdir(exist_ok=True)
        for file in sorted(new.iterdir()):
            file_to_disk(file)
            file.replace(self.best / file.name)
        new.rmdir()

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from training in this folder; the operating system unlocks it if this one is killed."""
        self.path.mkdir(parents=True, exist_ok=True)
        try:
            with filelock.FileLock(self.path / ".lock", timeout=0):
                yield
        except filelock.Timeout:
            raise UserError(f"another process is training in {self.path}") from None


def upgraded(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration in the meaning of this version, without the key `version` that says in whose it was.

    Before 0.2 `training.weight_decay` was the share that each step takes from a weight; since then it is multiplied by
    the learning rate, as in PyTorch and Keras.

    Examples
    --------
    >>> upgraded({"version": "0.1.0", "training": {"weight_decay": 2e-6, "learning_rate": 1e-3}})
    {'training': {'weight_decay': 0.002, 'learning_rate': 0.001}}
    """
    version = str(config.get("version", __version__))
    config = {key: value for key, value in config.items() if key != "version"}
    training = config.get("training")
    if version.startswith("0.1.") and isinstance(training, Mapping) and training.get("weight_decay"):
        rate = float(training.get("learning_rate", FIRST_RATE))
        config["training"] = {**training, "weight_decay": float(f"{float(training['weight_decay']) / rate:.12g}")}
    return config
