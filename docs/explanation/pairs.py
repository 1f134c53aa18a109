"""Draw pairs.svg, the structures of directions.md: `python docs/explanation/pairs.py`."""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np


def ring(atoms: int, center: tuple[float, float]) -> np.ndarray:
    angles = 2 * np.pi * np.arange(atoms) / atoms + np.pi / 2
    return np.stack([np.cos(angles), np.sin(angles)], axis=1) / np.sin(np.pi / atoms) + center


def draw(axes: plt.Axes, points: np.ndarray, bonds: list[tuple[int, int]], title: str) -> None:
    for a, b in bonds:
        axes.plot(*points[[a, b]].T, color="0.55", lw=3, zorder=1)
    axes.scatter(*points.T, s=170, color="#3b6ea5", edgecolor="black", zorder=2)
    axes.set(title=title, aspect="equal", xlim=(-4, 4), ylim=(-3, 3))
    axes.axis("off")


six = [(i, (i + 1) % 6) for i in range(6)]
triangle = [(0, 1), (1, 2), (2, 0)]
three = [(0, 1), (1, 2), (2, 3)]
bend = np.array([-0.34, 0.94]) * 2
cis = np.array([[-1, 0] + bend, [-1, 0], [1, 0], [1, 0] + bend * [-1, 1]])
trans = np.array([[-1, 0] + bend, [-1, 0], [1, 0], [1, 0] - bend * [1, 1]])
figure, axes = plt.subplots(1, 4, figsize=(10, 2.4), layout="constrained")
draw(axes[0], ring(6, (0, 0)), six, "hexagon")
two = np.concatenate([ring(3, (-2, 0)), ring(3, (2, 0))])
draw(axes[1], two, triangle + [(a + 3, b + 3) for a, b in triangle], "two triangles")
draw(axes[2], cis, three, "cis")
draw(axes[3], trans, three, "trans")
plt.rcParams["svg.hashsalt"] = "pairs"
figure.savefig(Path(__file__).with_name("pairs.svg"), metadata={"Date": None})
