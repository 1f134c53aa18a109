"""Two TensorFlow versions side by side: `python benchmarks/stacks.py PYTHON_1 PYTHON_2 [--columns ...] [--rounds 3]`.

PYTHON_1 and PYTHON_2 are interpreters with the library installed. They take turns: each round starts a process of each
for every column of benchmarks/speed.py. The table has medians over the rounds and the ratio of the second to the first.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
from pathlib import Path

from common import in_its_own_process, print_machine, print_table

SPEED = str(Path(__file__).with_name("speed.py"))
VERSIONS = "import platform, importlib.metadata as m; print(platform.python_version(), m.version('tensorflow'))"


def name_of(python: str) -> str:
    """Return the versions of Python and TensorFlow."""
    python_version, tensorflow = subprocess.check_output([python, "-c", VERSIONS], text=True).split()
    return f"Python {python_version}, TensorFlow {tensorflow}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pythons", nargs=2, metavar="PYTHON")
    parser.add_argument("--columns", default="dimenet_pp:sum_first,dimenet:sum_first,gemnet_t:sum_first")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    print_machine(args.threads)
    names = [name_of(python) for python in args.pythons]
    for column in args.columns.split(","):
        options = {"column": column, "data": None, "repeats": args.repeats, "threads": args.threads}
        options["precision"] = "float32"
        rounds = [[in_its_own_process(SPEED, options, python) for python in args.pythons] for _ in range(args.rounds)]
        rows = [row for row in rounds[0][0] if row != "edges"]
        medians = [{row: statistics.median(turn[side][row] for turn in rounds) for row in rows} for side in (0, 1)]
        ratio = {row: medians[1][row] / medians[0][row] for row in rows}
        print(f"\n{column}, median of {args.rounds} processes\n")
        print_table({**dict(zip(names, medians)), "ratio": ratio})


if __name__ == "__main__":
    main()
