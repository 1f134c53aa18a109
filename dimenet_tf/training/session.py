"""One session of a run: from a resolved configuration to the table of test errors."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import tensorflow as tf

from dimenet_tf.config.build import build_predictor, data_config, training_config
from dimenet_tf.config.schema import resolve
from dimenet_tf.data.dataset import Dataset, describe, load_container, load_dataset
from dimenet_tf.errors import UserError
from dimenet_tf.models import MODELS
from dimenet_tf.predictor import load
from dimenet_tf.predictor.weights import named_variables
from dimenet_tf.runs.folder import RunFolder
from dimenet_tf.structures.checks import summary
from dimenet_tf.structures.splits import Split
from dimenet_tf.training.distribution import Workers, make_strategy
from dimenet_tf.training.report import report
from dimenet_tf.training.trainer import Trainer


def open_dataset(config: dict, folder: RunFolder) -> Dataset:
    """Load a run's data: with the split that the run has stored, if they are the data it was started with."""
    data = data_config(config)
    container = load_container(data)
    if not folder.split_file.exists():
        return load_dataset(data, container=container)
    if folder.read_data_description()["sha256"] != container.checksum():
        raise UserError(f"the data are not those that {folder.path} was started with (checksum in data.json)")
    return load_dataset(data, Split.load(folder.split_file), container)


def check_continuation(config: dict, folder: RunFolder) -> None:
    """Raise a UserError if model, data, loss or seed of a run differ from those that it was started with."""
    if not folder.config_file.exists():
        return
    before = resolve(folder.read_config())  # runs of earlier versions lack keys, which had their defaults
    now = {f"{section}.{key}": value for section in ("model", "data") for key, value in config[section].items()}
    for key in ("cache", "on_bad", "max_atoms", "outliers"):  # what they change in the data, their checksum shows
        del now[f"data.{key}"]
    # what decides over the best model and the learning rate's decay must keep its meaning
    now |= {f"training.{key}": config["training"][key] for key in ("loss", "rho_force", "rho_stress", "weights")}
    for path, value in {**now, "precision": config["precision"], "seed": config["seed"]}.items():
        section, _, key = path.rpartition(".")
        old = (before[section] if section else before).get(key)
        if old != value:
            raise UserError(
                f"{path} of {folder.path} is {old!r} and cannot change; "
                f"start a new run, with training.init_from={folder.path} to keep its weights"
            )


def run_session(config: dict, folder: RunFolder, on_validation: Callable[[dict], None] | None = None) -> int | None:
    """Train in a run folder until the end or a signal, starting from its last checkpoint if it has one.

    Parameters
    ----------
    config : resolved configuration
    folder : of the run
    on_validation : called with each line of metrics.csv

    Returns
    -------
    None, or the number of the signal (Ctrl-C, SIGTERM) that ended the session before the last step
    """
    strategy = make_strategy(config["training"]["strategy"])
    workers = Workers(strategy)
    with workers.watched(), folder.locked() if workers.is_chief else contextlib.nullcontext():
        trainer = open_trainer(config, folder, on_validation, strategy)
        stopped = trainer.run()
        if not workers.is_chief:
            return stopped
        if stopped is not None:
            print(f"stopped at step {trainer.step}; continue with: dimenet-tf train run={folder.path}")
        else:
            print(report(load(folder.path), trainer.dataset, folder))
            print(f"best model, plots and metrics: {folder.path}")
        return stopped


def fit_session(config: dict, folder: RunFolder) -> None:
    """Fit the scaling factors of a new run, print them, and save them in its first checkpoint.

    Raises
    ------
    UserError
        For a model that has none.
    """
    if not MODELS[config["model"]["name"]].has_scale_factors:
        raise UserError(f"model.name: {config['model']['name']} has no scaling factors")
    if config["training"]["strategy"] == "multi_worker":
        raise UserError("scaling factors are fitted by one process: training.strategy=none")
    with folder.locked():
        trainer = open_trainer(config, folder)
        named = named_variables(trainer.predictor.model).items()
        factors = {name: float(variable) for name, variable in named if name.endswith("scale_factor")}
        trainer.save_first()
        width = max(map(len, factors))
        print("\n".join(f"{name:{width}}  {factor:.4f}" for name, factor in factors.items()))
        print(f"train with these: dimenet-tf train run={folder.path}")


def open_trainer(
    config: dict,
    folder: RunFolder,
    on_validation: Callable[[dict], None] | None = None,
    strategy: tf.distribute.Strategy | None = None,
) -> Trainer:
    """Make everything that a run has before its next step, write down what it is, and print that."""
    check_continuation(config, folder)
    dataset = open_dataset(config, folder)
    trainer = Trainer(
        training_config(config),
        lambda: build_predictor(config, dataset),
        dataset,
        folder,
        config["seed"],
        on_validation,
        strategy,
    )
    if trainer.workers.is_chief:
        folder.describe(config, describe(dataset))
        folder.write_dropped(dataset.container.dropped)
        dataset.split.save(folder.split_file)
        print("\n".join(introduction(trainer, config)))
    return trainer


def introduction(trainer: Trainer, config: dict) -> list[str]:
    """Describe model, data and memory before the first step of a session."""
    folder, predictor, data = trainer.folder, trainer.predictor, trainer.dataset
    start = f"resuming from step {trainer.step}" if trainer.step else "a new run"
    sizes = {part: len(molecules) for part, molecules in data.split._asdict().items()}
    lines = [
        f"{folder.path}: {config['model']['name']}, {predictor.model.count_params():,} parameters, {start}",
        f"data: {data.container.source}, {sizes}, targets: {', '.join(predictor.units)}",
    ]
    if dropped := data.container.dropped:
        everything = len(data.container) + len(dropped)
        lines.append(f"dropped {len(dropped)} of {everything} molecules: {summary(dropped)} ({folder.dropped_file})")
    labels, molecules = data.num_labels(), len(data.container)
    if any(number < molecules for number in labels.values()):
        listed = ", ".join(f"{name} {number}" for name, number in labels.items())
        lines.append(f"labels: {listed} of {molecules} molecules")
    lines += [f"note: {note}" for note in data.notes()]
    if predictor.energy is not None and predictor.model.discontinuity:
        lines.append(f"WARNING: {predictor.model.discontinuity}")
    return [*lines, *trainer.length_lines, trainer.memory_line()]
