"""Evaluate the best model of a run, or combine single-target runs into the table of the papers.

python run_eval.py with run=runs/3 part=test
python run_eval.py with runs=runs/3,runs/4,runs/5 output=table1
"""

import logging
import sys

from dimenet_tf.cli import check_config_files, one_line_errors, quiet_tensorflow

quiet_tensorflow()

from sacred import SETTINGS, Experiment  # noqa: E402

SETTINGS["CAPTURE_MODE"] = "no"
experiment = Experiment("evaluate", save_git_info=False)
experiment.logger = logging.getLogger("sacred")
experiment.logger.setLevel(logging.CRITICAL)  # what users must know is printed below
experiment.add_config(run=None, part="test", runs=None, output="table1")


@experiment.config_hook
def check(config, command_name, logger):
    """Refuse unknown keys and values."""
    with one_line_errors():
        from dimenet_tf.errors import UserError, unknown_name

        for key in config:
            if key not in ("run", "part", "runs", "output", "seed"):
                raise unknown_name("key", key, ("run", "part", "runs", "output"))
        if config["part"] not in ("train", "valid", "test"):
            raise UserError(f"part: '{config['part']}' is none of train, valid, test")
        if command_name == evaluate.__name__ and not config["run"] and not config["runs"]:
            raise UserError("name a run folder: python run_eval.py with run=runs/3")
        if config["runs"] and (config["run"] or config["part"] != "test"):
            raise UserError("runs are combined on their test molecules: give neither run nor part beside them")
        names = config["runs"] if isinstance(config["runs"], (list, tuple)) else [config["runs"]]
        for name in (config["run"], *names):
            if not isinstance(name, (str, type(None))):
                raise UserError(f"{name} is no run folder; write runs/{name}")


@experiment.main
def evaluate(run, part, runs, output):
    """Print the table of errors; write JSON, parity plots and residual histograms into the run folder."""
    with one_line_errors():
        from dimenet_tf.predictor import load
        from dimenet_tf.training.folder import RunFolder
        from dimenet_tf.training.report import report
        from dimenet_tf.training.session import open_dataset

        if runs:
            from dimenet_tf.training.table1 import combine, write_table

            print(write_table(combine(runs.split(",") if isinstance(runs, str) else runs), output))
            return
        folder = RunFolder(run)
        config = folder.read_config()
        print(report(load(folder.path), open_dataset(config, folder), folder, part))
        print(f"{part}.json and plots: {folder.path}")


if __name__ == "__main__":
    with one_line_errors():
        check_config_files(sys.argv)
    experiment.run_commandline()
