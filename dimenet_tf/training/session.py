"""One session of a run: from a resolved configuration to the table of test errors."""

from __future__ import annotations

from collections.abc import Callable

from dimenet_tf.config import build_predictor, data_config, resolve, training_config
from dimenet_tf.data.checks import summary
from dimenet_tf.data.dataset import Dataset, describe, load_container, load_dataset
from dimenet_tf.data.splits import Split
from dimenet_tf.errors import UserError
from dimenet_tf.predictor import load
from dimenet_tf.training.folder import RunFolder
from dimenet_tf.training.report import report
from dimenet_tf.training.trainer import Trainer


def open_dataset(config: dict, folder: RunFolder) -> Dataset:
    """Load a run's data: with the split that the run has stored, if they are the data it was started with."""
    container = load_container(data_config(config))
    if not folder.split_file.exists():
        return load_dataset(data_config(config), container=container)
    if folder.read_data_description()["sha256"] != container.checksum():
        raise UserError(f"the data are not those that {folder.path} was started with (checksum in data.json)")
    return load_dataset(data_config(config), Split.load(folder.split_file), container)


def check_continuation(config: dict, folder: RunFolder) -> None:
    """Refuse to go on with a run whose model, data or seed would be others than it was started with."""
    if not folder.config_file.exists():
        return
    before = resolve(folder.read_config())  # runs of earlier versions lack keys, which had their defaults
    now = {f"{section}.{key}": value for section in ("model", "data") for key, value in config[section].items()}
    # the best model is the one of the smallest loss, whose meaning must stay
    now |= {f"training.{key}": config["training"][key] for key in ("loss", "rho_force")}
    for path, value in {**now, "precision": config["precision"], "seed": config["seed"]}.items():
        section, _, key = path.rpartition(".")
        old = (before[section] if section else before).get(key)
        if old != value:
            raise UserError(
                f"{path} of {folder.path} is {old!r} and cannot change; "
                f"start a new run, with training.init_from={folder.path} to keep its weights"
            )


def run_session(config: dict, folder: RunFolder, on_validation: Callable[[dict], None] | None = None) -> bool:
    """Train in a run folder until the end or Ctrl-C, starting from its last checkpoint if it has one.

    Parameters
    ----------
    config : resolved configuration
    folder : of the run
    on_validation : called with each line of metrics.csv

    Returns
    -------
    False if Ctrl-C ended the session before the last step
    """
    check_continuation(config, folder)
    dataset = open_dataset(config, folder)
    description = describe(dataset)
    trainer = Trainer(
        training_config(config),
        lambda: build_predictor(config, dataset),
        dataset,
        folder,
        config["seed"],
        on_validation,
    )
    folder.describe(config, description)
    dataset.split.save(folder.split_file)
    dropped = dataset.container.dropped
    folder.write_dropped(dropped)
    model = trainer.predictor.model
    start = f"going on from step {trainer.step}" if trainer.step else "a new run"
    print(f"{folder.path}: {config['model']['name']}, {model.count_params():,} parameters, {start}")
    print(f"data: {description['source']}, {description['split']}, targets: {', '.join(trainer.predictor.units)}")
    if dropped:
        everything = len(dataset.container) + len(dropped)
        print(f"dropped {len(dropped)} of {everything} molecules: {summary(dropped)} ({folder.dropped_file})")
    print(trainer.memory_line())
    if not trainer.run():
        print(f"stopped at step {trainer.step}; go on with: python run_train.py with run={folder.path}")
        return False
    print(report(load(folder.path), dataset, folder))
    print(f"best model, plots and metrics: {folder.path}")
    return True
