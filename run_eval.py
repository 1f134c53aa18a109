"""Evaluate the best model of a run, or combine single-target runs into the table of the papers.

python run_eval.py with run=runs/3 part=test
python run_eval.py with runs=runs/3,runs/4,runs/5 output=table1
python run_eval.py with run=runs/6 relax=oc20/is2re            # relax OC20's initial structures
"""

import sys

from sacred import SETTINGS, Experiment

from dimenet_tf.commands.console import import_tensorflow, one_line_errors
from dimenet_tf.commands.evaluate import FMAX, MAX_STEPS, PARTS, combine_runs, evaluate_run, relax_run
from dimenet_tf.commands.scripts import run_script
from dimenet_tf.errors import UserError, unknown_name

SETTINGS["CAPTURE_MODE"] = "no"
experiment = Experiment("evaluate", save_git_info=False)
KEYS = {"run": None, "part": "test", "runs": None, "output": "table1"}
KEYS |= {"relax": None, "fmax": FMAX, "max_steps": MAX_STEPS, "structures": None}
experiment.add_config(**KEYS)


@experiment.config_hook
def prepare(config, command_name, logger):
    """Refuse unknown keys and values."""
    with one_line_errors():
        for key in config:
            if key not in (*KEYS, "seed"):
                raise unknown_name("key", key, KEYS)
        if config["part"] not in PARTS:
            raise UserError(f"part must be one of {', '.join(PARTS)}; got '{config['part']}'")
        if command_name == evaluate.__name__ and not config["run"] and not config["runs"]:
            raise UserError("name a run folder: python run_eval.py with run=runs/3")
        if config["runs"] and (config["run"] or config["part"] != "test"):
            raise UserError("several runs are combined on their test molecules: give neither run nor part with runs")
        for key, kinds in (("fmax", (float, int)), ("max_steps", (int,)), ("structures", (int, type(None)))):
            if not isinstance(config[key], kinds):
                raise UserError(f"{key} = {config[key]} must be {'a number' if float in kinds else 'an integer'}")
        if config["relax"] and (config["runs"] or config["part"] != "test"):
            raise UserError("relax takes one run, and neither runs nor part")
        names = config["runs"] if isinstance(config["runs"], (list, tuple)) else [config["runs"]]
        for name in (config["run"], *names):
            if not isinstance(name, (str, type(None))):
                raise UserError(f"{name} is no run folder; write runs/{name}")


@experiment.main
def evaluate(run, part, runs, output, relax, fmax, max_steps, structures):
    """Print the table of errors; write JSON, parity plots and residual histograms into the run folder."""
    import_tensorflow()
    with one_line_errors():
        if relax:
            relax_run(run, relax, fmax, max_steps, structures)
        elif runs:
            combine_runs(runs.split(",") if isinstance(runs, str) else runs, output)
        else:
            evaluate_run(run, part)


if __name__ == "__main__":
    with one_line_errors():
        run_script(experiment, sys.argv)
