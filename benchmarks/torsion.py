"""Compare energies with the published and the smooth torsion: jumps along a rotation, mirror images.

    python run_train.py with configs/spherenet_forces.yaml run=runs/smooth
    python run_train.py with configs/spherenet_forces.yaml run=runs/published model.torsion=published
    python benchmarks/torsion.py runs/published runs/smooth --plot torsion.png

Takes runs on the embedded trajectory of ethanol. The hydroxyl group of a relaxed ethanol is turned by 360 degrees;
every interval of the scan is halved again and again, to the half where the energy changes more, until what is left of
the change is a jump. Mirror images are those of the run's test frames. Everything in float64. Prints a table.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from common import print_machine, print_table, set_threads

INTERVALS = 720  # of the full turn
HALVINGS = 20
OXYGEN, CARBON, OTHER_CARBON, HYDROGEN = 2, 1, 0, 3  # of the embedded trajectory
JUMP = 1.0  # meV


def turned(atoms, degrees: np.ndarray) -> list:
    """Return the molecule with its hydroxyl's hydrogen at these dihedral angles."""
    frames = []
    for angle in degrees:
        frames.append(atoms.copy())
        frames[-1].set_dihedral(OTHER_CARBON, CARBON, OXYGEN, HYDROGEN, angle, indices=[HYDROGEN])
    return frames


def energies(predictor, frames: list) -> np.ndarray:
    """Return energies in meV, (frames,)."""
    return 1000 * predictor.predict(frames)[predictor.energy]


def jumps_along(predictor, atoms) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the angles and energies of a scan and what each of its intervals still changes by when it is tiny."""
    angles = np.linspace(0, 360, INTERVALS + 1)
    scan = energies(predictor, turned(atoms, angles))
    low, high = (np.stack(ends) for ends in ((angles[:-1], scan[:-1]), (angles[1:], scan[1:])))  # (2, intervals)
    for _ in range(HALVINGS):
        middle = (low[0] + high[0]) / 2
        middle = np.stack([middle, energies(predictor, turned(atoms, middle))])
        first = np.abs(middle[1] - low[1]) > np.abs(high[1] - middle[1])
        low, high = np.where(first, low, middle), np.where(first, middle, high)
    return angles, scan, np.abs(high[1] - low[1])


def measure(run: Path) -> tuple[dict, tuple]:
    """Return a column of the table, and the scan."""
    from ase.optimize import FIRE

    import dimenet_tf
    from dimenet_tf.md import DimeNetCalculator
    from dimenet_tf.md.certify import frame, own_test_frames

    predictor = dimenet_tf.load(run).clone("float64")
    data = own_test_frames(run)
    frames = [frame(data, i) for i in range(0, len(data), 8)]
    mirrored = [atoms.copy() for atoms in frames]
    for atoms in mirrored:
        atoms.positions[:, 0] *= -1
    difference = np.abs(energies(predictor, mirrored) - energies(predictor, frames))
    relaxed = frames[0].copy()
    relaxed.calc = DimeNetCalculator(predictor)
    FIRE(relaxed, logfile=None).run(fmax=0.02, steps=500)
    relaxed.calc = None
    angles, scan, jumps = jumps_along(predictor, relaxed)
    column = {
        f"jumps of more than {JUMP:g} meV": int((jumps > JUMP).sum()),
        "largest jump / meV": float(jumps.max()),
        "barrier / meV": float(np.ptp(scan)),
        "mirror images, mean difference / meV": float(difference.mean()),
        "mirror images, largest / meV": float(difference.max()),
    }
    return column, (angles, scan, jumps)


def draw(scans: dict[str, tuple], file: Path) -> None:
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    for color, (name, (angles, scan, jumps)) in enumerate(scans.items()):
        pieces = np.where(np.append(jumps, 0) > JUMP / 4, np.nan, scan - scan.min())  # the line breaks where it jumps
        axes.plot(angles, pieces, color=f"C{color}", label=name)
    axes.set(
        xlabel="dihedral angle C-C-O-H / degrees", ylabel="energy / meV", xlim=(0, 360), xticks=np.arange(0, 361, 60)
    )
    axes.legend()
    figure.savefig(file, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--plot", type=Path)
    arguments = parser.parse_args()
    print_machine(1)
    measured = {run.name: measure(run) for run in arguments.runs}
    print_table({name: column for name, (column, _) in measured.items()})
    if arguments.plot:
        draw({name: scan for name, (_, scan) in measured.items()}, arguments.plot)


if __name__ == "__main__":
    set_threads(1)
    main()
