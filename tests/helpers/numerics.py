"""Numbers that results are compared with, in plain NumPy."""

import csv
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tensorflow as tf
from ase import Atoms
from scipy.special import lpmv

from dimenet_tf.predictor import Predictor


def error(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Largest difference, relative to the largest number."""
    return np.abs(np.asarray(ours) - theirs).max() / np.abs(theirs).max()


def derivatives(function: Callable, x: tf.Tensor, order: int) -> list[np.ndarray]:
    """Values of a function at x, and of its derivatives up to an order."""
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(x)
        values = [function(x)]
        for _ in range(order):
            values.append(tape.gradient(values[-1], x))
    return [np.asarray(value) for value in values]


def slope(predictor: Predictor, atoms: Atoms, of: str, step: float = 1e-5) -> np.ndarray:
    """Derivatives of a property by all coordinates, (3 atoms, ...), as finite differences of the fourth order."""
    frames = []
    for factor in (-2, -1, 1, 2):
        for coordinate in range(3 * len(atoms)):
            copy = atoms.copy()
            copy.positions.ravel()[coordinate] += factor * step
            frames.append(copy)
    values = predictor.predict(frames)[of]
    a, b, c, d = values.reshape(4, 3 * len(atoms), *values.shape[1:])
    return (a - 8 * b + 8 * c - d) / (12 * step)


def real_harmonic(degree: int, m: int, theta: float, phi: float) -> float:
    """Real spherical harmonic without the Condon-Shortley sign, which SciPy's Legendre functions have."""
    n = abs(m)
    norm = np.sqrt((2 * degree + 1) / (4 * np.pi) * math.factorial(degree - n) / math.factorial(degree + n))
    around = np.sqrt(2) * np.cos(n * phi) if m > 0 else np.sqrt(2) * np.sin(n * phi) if m < 0 else 1.0
    return norm * (-1) ** n * lpmv(n, degree, np.cos(theta)) * around


def place(R: np.ndarray, k: int, j: int, i: int) -> tuple[float, float]:
    """Angle of k at j, and azimuth of k around the axis j -> i, counted from an arbitrary direction."""
    axis, to_k = (v / np.linalg.norm(v) for v in (R[i] - R[j], R[k] - R[j]))
    aside = np.cross(axis, [0.3, -0.5, 0.8])
    aside /= np.linalg.norm(aside)
    return np.arccos(to_k @ axis), np.arctan2(to_k @ np.cross(axis, aside), to_k @ aside)


def read_csv(path: Path) -> dict[str, np.ndarray]:
    """Columns of a table by name."""
    rows = list(csv.reader(path.open()))
    return dict(zip(rows[0], np.array(rows[1:], float).T))
