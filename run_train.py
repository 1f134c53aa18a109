"""Train a model, with Sacred's record of the run; `dimenet-tf train` does the same without.

python run_train.py with configs/dimenet.yaml training.num_steps=5000 data.target=mu
python run_train.py with run=runs/3                # continue a run
python run_train.py print_config with configs/dimenet.yaml
python run_train.py fit_scale_factors with configs/gemnet_t.yaml run=runs/mine     # GemNet's; training does it as well
"""

import sys

from sacred import SETTINGS, Experiment
from sacred.observers import FileStorageObserver

from dimenet_tf.commands.configuration import check_asked, complete
from dimenet_tf.commands.console import import_tensorflow, leaving_on_signals, one_line_errors
from dimenet_tf.commands.scripts import run_script, updates_of
from dimenet_tf.commands.train import fit_run, open_folder, train_run

SETTINGS["CAPTURE_MODE"] = "no"  # the progress bar belongs to the screen
SETTINGS["CONFIG"]["READ_ONLY_CONFIG"] = False
experiment = Experiment("train", save_git_info=False)
prepared = {}  # the complete configuration: Sacred replaces its values by those of files, where YAML reads 2e-6 as text


@experiment.config_hook
def prepare(config, command_name, logger):
    """Check what was given, fill it up with defaults (or a run's configuration), choose the run folder."""
    import_tensorflow()
    with one_line_errors():
        resolved = complete(config)
        if command_name in (train.__name__, fit_scale_factors.__name__):
            check_asked(updates_of(sys.argv), "python run_train.py with configs/dimenet.yaml data.target=mu")
            experiment.observers.append(FileStorageObserver(open_folder(resolved).sacred))
        prepared.update(resolved)
        return resolved


@experiment.main
def train(seed, precision, run, model, data, training, _run):  # Sacred refuses keys that no command takes
    """Train until the last step, and print the errors on the test molecules."""

    def log(row: dict) -> None:
        for name, value in row.items():
            _run.log_scalar(name, value, int(row["step"]))

    with one_line_errors():
        train_run(prepared, log)


@experiment.command
def fit_scale_factors(seed, precision, run, model, data, training):
    """Fit the scaling factors of a new run to batches of its data, and print them; training continues from there."""
    with one_line_errors():
        fit_run(prepared)


if __name__ == "__main__":
    with leaving_on_signals(), one_line_errors():
        run_script(experiment, sys.argv)
