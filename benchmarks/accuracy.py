"""Compare the errors that models reach in the same time.

    python benchmarks/accuracy.py FOLDER CONFIG.yaml ... --minutes 10 [--data FILE.npz] [--side-by-side]

Every configuration is trained on the same frames (of a file in MD17's layout: its own split) for as many steps as fit
into the minutes of CPU time, as timed before; start-up and validations come on top. The learning rate decays over that
length. Runs are made below FOLDER: the same command resumes those that were stopped. Prints a table and draws the
learning curves (FOLDER/curves.png).
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import yaml
from common import in_its_own_process, print_machine, print_table, set_threads

VALIDATIONS = 12
TIMED_STEPS = 50
ROOT = Path(__file__).parents[1]


def configuration(file: str, data: str) -> dict:
    """Return a configuration for the frames of a file, in MD17's layout and units; of the embedded ones without."""
    given = yaml.safe_load(Path(file).read_text())
    if data:
        units = {"energy": "kcal/mol", "forces": "kcal/mol/Ang"}
        counts = {key: given["data"][key] for key in ("num_train", "num_valid") if key in given["data"]}
        given["data"] = {"name": None, "path": data, "target": ["energy", "forces"], "units": units, **counts}
    return given


def measure(options: dict) -> dict:
    """Return the CPU seconds of a training step and the number of parameters."""
    import tempfile

    from dimenet_tf.config.build import build_predictor, data_config, training_config
    from dimenet_tf.config.schema import resolve
    from dimenet_tf.data import load_dataset
    from dimenet_tf.runs.folder import RunFolder
    from dimenet_tf.training.trainer import Trainer

    config = resolve(configuration(options["config"], options["data"]))
    dataset = load_dataset(data_config(config))
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(training_config(config), lambda: build_predictor(config, dataset), dataset, RunFolder(folder))
        step, batches = trainer.training.make_train_function(), iter(trainer._training_data(0))
        for _ in range(10):
            step(batches)
        start = time.process_time()
        for _ in range(TIMED_STEPS):
            step(batches)
        seconds = (time.process_time() - start) / TIMED_STEPS
    return {"seconds": seconds, "parameters": trainer.predictor.model.count_params()}


def planned(folder: Path, options: dict) -> dict:
    """Read the results of `measure`, which runs when the run is planned."""
    plan = folder.with_suffix(".json")
    if not plan.exists():
        measured = in_its_own_process(__file__, options)
        if not measured:
            sys.exit(f"{options['config']}: no step could be made")
        plan.write_text(json.dumps(measured))
    return json.loads(plan.read_text())


def train(folder: Path, options: dict, steps: int) -> subprocess.Popen:
    """Start a run, or resume it."""
    given = configuration(options["config"], options["data"])
    interval = max(steps // VALIDATIONS, 1)
    given["training"] |= {"num_steps": steps, "decay_steps": steps, "evaluation_interval": interval}
    given["run"] = str(folder)
    file = folder.with_suffix(".yaml")
    file.write_text(yaml.safe_dump(given))
    log = folder.with_suffix(".log").open("a")
    return subprocess.Popen([sys.executable, ROOT / "run_train.py", "with", file], stdout=log, stderr=log)


def result(folder: Path, plan: dict, steps: int) -> dict:
    """Return a column of the table."""
    targets = json.loads((folder / "test.json").read_text())["targets"]
    column = {"parameters": plan["parameters"], "CPU ms/step": 1000 * plan["seconds"], "steps": steps}
    return column | {f"test MAE {name} / {row['unit']}": row["mae"] for name, row in targets.items()}


def draw(folders: list[Path], minutes: float) -> None:
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    for folder in folders:
        rows = list(csv.DictReader((folder / "metrics.csv").open()))
        last = float(rows[-1]["step"])
        name = next(key for key in ("mae_forces", *rows[0]) if key.startswith("mae_") and key in rows[0])
        axes.plot(
            [minutes * float(row["step"]) / last for row in rows],
            [float(row[name]) for row in rows],
            marker=".",
            label=folder.name,
        )
    axes.set(
        xlabel="CPU time / min", ylabel=f"validation {name.replace('mae_', 'MAE of ')} (eV, Angstrom)", yscale="log"
    )
    axes.legend()
    figure.savefig(folders[0].parent / "curves.png", dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("configs", nargs="+")
    parser.add_argument(
        "--data", default="", help="npz file of one molecule in MD17's layout; otherwise the data of the files"
    )
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--side-by-side", action="store_true", help="all at the same time")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    print_machine(arguments.threads)
    columns, running, folders = {}, [], []
    for config in arguments.configs:
        folder, options = arguments.folder / Path(config).stem, {"config": config, "data": arguments.data}
        plan = planned(folder, options)
        steps = int(60 * arguments.minutes / plan["seconds"])
        folders.append(folder)
        running.append((folder, plan, steps, train(folder, options, steps)))
        if not arguments.side_by_side:
            running[-1][-1].wait()
    for folder, plan, steps, process in running:
        if process.wait() != 0:
            sys.exit(f"{folder}: ended with status {process.returncode}; see {folder.with_suffix('.log')}")
        columns[folder.name] = result(folder, plan, steps)
    print_table(columns)
    draw(folders, arguments.minutes)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        set_threads(1)
        print(json.dumps(measure(json.loads(sys.argv[2]))))
    else:
        os.environ.setdefault("PYTHONPATH", str(ROOT))
        set_threads(int(sys.argv[sys.argv.index("--threads") + 1]) if "--threads" in sys.argv else 1)
        main()
