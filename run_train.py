"""Train a model.

python run_train.py with configs/dimenet.yaml training.num_steps=5000 data.target=mu
python run_train.py with run=runs/3                # go on with a run
python run_train.py print_config with configs/dimenet.yaml
python run_train.py fit_scale_factors with configs/gemnet_t.yaml run=runs/mine     # GemNet's; training does it as well
"""

import logging
import signal
import sys
from pathlib import Path

from dimenet_tf.cli import check_config_files, one_line_errors, quiet_tensorflow, replace_length

quiet_tensorflow()

from sacred import SETTINGS, Experiment  # noqa: E402
from sacred.observers import FileStorageObserver  # noqa: E402

EXIT_CODES = {signal.SIGINT: 130, signal.SIGTERM: 75}  # "try again later": what a queue may start once more

SETTINGS["CAPTURE_MODE"] = "no"  # the progress bar belongs to the screen
SETTINGS["CONFIG"]["READ_ONLY_CONFIG"] = False
experiment = Experiment("train", save_git_info=False)
experiment.logger = logging.getLogger("sacred")
experiment.logger.setLevel(logging.CRITICAL)  # what users must know is printed below


@experiment.config_hook
def complete(config, command_name, logger):
    """Check what was given, fill it up with defaults (or a run's configuration), choose the run folder."""
    with one_line_errors():
        from dimenet_tf.config import resolve
        from dimenet_tf.errors import UserError
        from dimenet_tf.training.folder import RunFolder
        from dimenet_tf.training.settings import with_one_length

        given = dict(config)
        run = given.get("run")
        if isinstance(run, str):
            if Path(run, "config.yaml").exists():
                old = RunFolder(run).read_config()
                if isinstance(given.get("training"), dict):
                    old["training"] = with_one_length(old["training"], given["training"])
                given = merge(old, given)
            elif not {"model", "data", "training"} & set(given):
                raise UserError(f"no such run: {run}; a new run of that name needs a configuration")
        resolved = resolve(given)
        if command_name in (train.__name__, fit_scale_factors.__name__):
            if resolved["training"]["strategy"] == "multi_worker" and not run:
                raise UserError(
                    "training.strategy: multi_worker needs the name of the run that all share: run=runs/NAME"
                )
            folder = RunFolder(run) if run else RunFolder.new(resolved["training"]["logdir"])
            resolved["run"] = str(folder.path)
            experiment.observers.append(FileStorageObserver(folder.sacred))
        return resolved


def merge(old: dict, new: dict) -> dict:
    """Return `old` with the values of `new` in the place of its own, section by section."""
    merged = dict(old)
    for key, value in new.items():
        merged[key] = merge(old[key], value) if isinstance(value, dict) and isinstance(old.get(key), dict) else value
    return merged


@experiment.main
def train(seed, precision, run, model, data, training, _run):
    """Train until the last step, and print the errors on the test molecules."""
    given = {"seed": seed, "precision": precision, "run": run, "model": model, "data": data, "training": training}
    with one_line_errors():
        from dimenet_tf.config import resolve
        from dimenet_tf.training.folder import RunFolder
        from dimenet_tf.training.session import run_session

        def log(row: dict) -> None:
            for name, value in row.items():
                _run.log_scalar(name, value, int(row["step"]))

        # of what files and command line give, Sacred takes its own reading: 2e-6 is a text in YAML
        stopped = run_session(resolve(given), RunFolder(run), log)
    if stopped is not None:
        sys.exit(EXIT_CODES[stopped])


@experiment.command
def fit_scale_factors(seed, precision, run, model, data, training):
    """Fit the scaling factors of a new run to batches of its data, and print them; training goes on from there."""
    given = {"seed": seed, "precision": precision, "run": run, "model": model, "data": data, "training": training}
    with one_line_errors():
        from dimenet_tf.config import resolve
        from dimenet_tf.training.folder import RunFolder
        from dimenet_tf.training.session import fit_session

        fit_session(resolve(given), RunFolder(run))


if __name__ == "__main__":
    # while nothing is trained nothing is lost; `Trainer.run` has handlers of its own
    for number, code in EXIT_CODES.items():
        signal.signal(number, lambda *_, code=code: sys.exit(code))
    with one_line_errors():
        check_config_files(sys.argv)
    experiment.run_commandline(replace_length(sys.argv))
