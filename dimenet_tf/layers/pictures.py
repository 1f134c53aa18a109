"""Data of a model's pictures: curves, disks and diagrams, which `dimenet_tf.plots` draws."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple, Union

import numpy as np
import tensorflow as tf

from dimenet_tf.basis import SphericalBasis
from dimenet_tf.basis.formulas import degrees, orders

NUM_FILTERS = 15  # as in DimeNet, Fig. 5
BASIS, DIRECTIONS, ATOMS = "#b8843a", "#8a5a1a", "#4a7a40"  # colors of lines in diagrams


class Curves(NamedTuple):
    """Functions of a distance in one or several panels."""

    distance: np.ndarray
    """(points,), Angstrom."""
    panels: dict[str, np.ndarray]
    """Title of a panel -> (points, functions)."""
    label: str = ""
    """Label of the vertical axes."""
    names: Sequence[str] = ()
    """Names of the functions for a legend; empty for none."""


class Disks(NamedTuple):
    """Functions of a distance and an angle, each on a disk with the angle 0 at the top."""

    distance: np.ndarray
    """(n, n), Angstrom."""
    angle: np.ndarray
    """(n, n), radians."""
    values: np.ndarray
    """(functions, n, n); NaN leaves a place empty."""
    titles: Sequence[str]
    columns: int = 5


Picture = Union[Curves, Disks]


class Diagram:
    """Boxes and arrows of an architecture, in coordinates from 0 to 22 and from 0 to `top`.

    Parameters
    ----------
    height : float
        Height of the figure, inches.
    top : float
        Largest vertical coordinate.
    """

    def __init__(self, height: float, top: float) -> None:
        self.height, self.top = height, top
        self.boxes: list[tuple[float, float, float, float, str, str]] = []
        self.arrows: list[tuple[tuple[float, float], tuple[float, float], str]] = []
        self.lines: list[tuple[list[float], list[float], str]] = []
        self.texts: list[tuple[float, float, str, int]] = []

    def box(self, x: float, y: float, width: float, height: float, text: str, kind: str) -> None:
        """Add a box; `kind` is "input", "basis", "block" or "head"."""
        self.boxes.append((x, y, width, height, text, kind))

    def arrow(self, start: tuple[float, float], end: tuple[float, float], color: str = "#555555") -> None:
        """Add an arrow."""
        self.arrows.append((start, end, color))

    def line(self, x: list[float], y: list[float], color: str) -> None:
        """Add a line through points."""
        self.lines.append((x, y, color))

    def text(self, x: float, y: float, text: str, size: int = 8) -> None:
        """Add a text that starts at a point."""
        self.texts.append((x, y, text, size))


def distances(cutoff: float, dtype: str) -> tf.Tensor:
    """Return distances up to a cutoff, without zero, (500,) Angstrom."""
    return tf.constant(np.linspace(0.02 * cutoff, cutoff, 500), dtype)


def radial_curves(function: Callable, cutoff: float, dtype: str) -> Curves:
    """Make curves of a radial basis, a function (n,) Angstrom -> (n, num_radial)."""
    d = distances(cutoff, dtype)
    values = function(d).numpy()
    names = [f"n = {n + 1}" for n in range(values.shape[1])]
    return Curves(d.numpy(), {"": values}, "radial basis function (with envelope)", names)


def polar_grid(cutoff: float, size: int = 181) -> tuple[np.ndarray, np.ndarray]:
    """Return distances and angles of a disk, (size, size) each."""
    angle, distance = np.meshgrid(np.linspace(0, 2 * np.pi, size), np.linspace(0.05 * cutoff, cutoff, size))
    return distance, angle


def on_grid(basis: SphericalBasis, distance: np.ndarray, angle: np.ndarray) -> np.ndarray:
    """Return values of a two-dimensional basis, (points, num_spherical * num_radial)."""
    inputs = (tf.constant(values.ravel(), basis.dtype) for values in (distance, np.cos(angle)))
    return basis(tuple(inputs)).numpy()


def spherical_disks(basis: SphericalBasis) -> Disks:
    """Make disks of all functions of a two-dimensional basis, one row for each degree."""
    distance, angle = polar_grid(basis.cutoff)
    values = on_grid(basis, distance, angle).T.reshape(-1, *angle.shape)
    titles = [f"l = {degree}, n = {n + 1}" for degree in range(basis.num_spherical) for n in range(basis.num_radial)]
    return Disks(distance, angle, values, titles, basis.num_radial)


def filter_disks(basis: SphericalBasis, kernel: np.ndarray) -> Disks:
    """Make disks of the first learned filters: linear combinations of a basis by the columns of a kernel."""
    distance, angle = polar_grid(basis.cutoff)
    kernel = kernel[:, :NUM_FILTERS]
    values = (on_grid(basis, distance, angle) @ kernel).T.reshape(-1, *angle.shape)
    return Disks(distance, angle, values, [f"element {i + 1}" for i in range(len(values))])


def harmonics_at(basis: SphericalBasis, angle: np.ndarray, torsion: float, mirrored: bool = False) -> np.ndarray:
    """Return spherical harmonics on a disk at a torsion, (points, num_spherical^2).

    Angles above pi belong to the torsion plus pi. `mirrored` harmonics do not depend on the torsion's sign.
    """
    y = np.sin(angle) * np.sin(torsion)
    directions = [np.sin(angle) * np.cos(torsion), np.abs(y) if mirrored else y, np.cos(angle)]
    return basis.harmonics(tf.constant(np.stack(directions, -1).reshape(-1, 3), basis.dtype)).numpy()


def harmonic_disks(basis: SphericalBasis) -> Disks:
    """Make disks of the first radial functions times all harmonics: a row for each degree l, a column for each m.

    They are drawn at the torsion 0 for m >= 0, and at pi / (2 |m|), where the sine is 1, for m < 0.
    """
    distance, angle = polar_grid(basis.cutoff, size=61)
    count = basis.num_spherical
    radial = basis.radial(tf.constant(distance.ravel(), basis.dtype)).numpy()[:, :, 0]  # (points, num_spherical)
    values, titles = np.full((count, 2 * count - 1, *angle.shape), np.nan), [""] * (count * (2 * count - 1))
    for harmonic, (degree, column) in enumerate(zip(degrees(count), orders(count))):
        order = column - count + 1
        torsion = 0.0 if order >= 0 else np.pi / (2 * -order)
        function = harmonics_at(basis, angle, torsion)[:, harmonic] * radial[:, degree]
        values[degree, column] = function.reshape(angle.shape)
        shown = "" if order >= 0 else f"\n$\\varphi = \\pi/{-2 * order}$"
        titles[degree * (2 * count - 1) + column] = f"l = {degree}, m = {order}{shown}"
    return Disks(distance, angle, values.reshape(-1, *angle.shape), titles, 2 * count - 1)


def torsion_disks(
    basis: SphericalBasis, degree: np.ndarray, kernel: np.ndarray, count: int, mirrored: bool = False
) -> Disks:
    """Make disks of the first learned filters of distance, angle and torsion, one row for each filter.

    Parameters
    ----------
    basis : SphericalBasis
    degree : (num_harmonics,) int, degree of the radial functions of each harmonic
    kernel : (num_harmonics * num_radial, filters)
    count : filters to draw
    mirrored : see `harmonics_at`
    """
    torsions = {"0": 0.0, "\\pi/2": 0.5, "\\pi": 1.0, "3\\pi/2": 1.5}
    if mirrored:
        del torsions["3\\pi/2"]  # the same as pi/2
    distance, angle = polar_grid(basis.cutoff, size=91)
    flat = tf.constant(distance.ravel(), basis.dtype)
    radial = tf.gather(basis.radial(flat), degree, axis=1).numpy()
    kernel = kernel[:, :count]
    by_torsion = []
    for turns in torsions.values():
        harmonics = harmonics_at(basis, angle, turns * np.pi, mirrored)
        by_torsion.append((harmonics[:, :, None] * radial).reshape(len(radial), -1) @ kernel)
    values = np.stack(by_torsion, axis=-1)  # (points, filters, torsions)
    values = np.moveaxis(values.reshape(*angle.shape, -1), -1, 0)
    titles = [f"element {i + 1}, $\\varphi = {t}$" for i in range(kernel.shape[1]) for t in torsions]
    return Disks(distance, angle, values, titles, len(torsions))


def directional_diagram(num_blocks: int | str, angles: str) -> Diagram:
    """Make a diagram of graph, bases and blocks of DimeNet (Fig. 4) and the architectures built like it.

    Parameters
    ----------
    num_blocks : number of blocks, or its symbol
    angles : arguments of the directional basis, with its symbols in brackets: "angle (SBF)"
    """
    diagram = Diagram(5.2, 10.4)
    box, arrow = diagram.box, diagram.arrow
    box(0.2, 6.3, 3.0, 1.6, "atoms\n$Z$, $R$", "input")
    box(0.2, 2.3, 3.0, 1.6, "graph\nedges within\nthe cutoff", "input")
    box(4.4, 6.3, 3.6, 1.6, "radial Bessel basis\nof $d_{ji}$ (RBF)", "basis")
    box(4.4, 2.3, 3.6, 1.6, f"spherical Fourier-Bessel\nbasis of $d_{{kj}}$, {angles}", "basis")
    columns = [(9.2, "embedding\nblock"), (12.2, "interaction\nblock 1"), (16.0, f"interaction\nblock {num_blocks}")]
    for x, text in columns:
        box(x, 6.3, 2.4, 1.6, text, "block")
        box(x, 2.3, 2.4, 1.6, "output\nblock", "block")
        arrow((x + 1.2, 6.1), (x + 1.2, 4.1))
        arrow((x + 1.2, 2.1), (x + 1.2, 1.1))
        diagram.text(x + 1.35, 5.0, "$m_{ji}$", 9)
    diagram.text(15.0, 7.0, "...", 14)
    box(9.2, 0.1, 9.2, 0.8, "sum over blocks, then over atoms", "head")
    box(19.3, 0.1, 2.4, 0.8, "property", "head")
    arrow((18.6, 0.5), (19.1, 0.5))
    arrow((1.7, 6.1), (1.7, 4.1))
    arrow((3.4, 3.6), (4.2, 6.7))
    arrow((3.4, 3.1), (4.2, 3.1))
    for x in (8.2, 11.8, 14.8, 15.6):
        arrow((x, 7.1), (9.0 if x == 8.2 else x + 0.2, 7.1))
    diagram.line([6.2, 6.2, 17.2], [8.1, 9.0, 9.0], BASIS)
    diagram.line([6.2, 6.2, 8.6, 8.6, 17.6], [4.1, 4.8, 4.8, 9.7, 9.7], DIRECTIONS)
    for x in (13.2, 17.0):
        arrow((x, 9.0), (x, 8.1))
        arrow((x + 0.5, 9.7), (x + 0.5, 8.1))
    diagram.text(10.2, 9.1, "RBF")
    names = angles.split("(")[-1].rstrip(")")
    diagram.text(10.2, 9.8, f"{names}, to the directional sum over $k \\in N(j) \\setminus i$")
    return diagram


def layers_diagram(layers: Sequence[tf.keras.layers.Layer]) -> Diagram:
    """Make a diagram of a model's layers in the order in which they were made, with their numbers of weights."""
    groups: list[tuple[str, list[int]]] = []
    for layer in layers:
        kind = type(layer).__name__
        if not groups or groups[-1][0] != kind:
            groups.append((kind, []))
        groups[-1][1].append(sum(math.prod(weight.shape) for weight in layer.weights))
    rows = -(-(len(groups) + 2) // 5)
    diagram = Diagram(1.3 * rows + 0.5, 2.4 * rows)
    texts = [("graph", "input")]
    for kind, counts in groups:
        several = f" x {len(counts)}" if len(counts) > 1 else ""
        texts.append((f"{kind}{several}\n{sum(counts):,} weights", "basis" if "Basis" in kind else "block"))
    for i, (text, kind) in enumerate([*texts, ("outputs of the atoms", "head")]):
        row, column = divmod(i, 5)
        x, y = 0.2 + 4.4 * column, 2.4 * (rows - row) - 1.9
        diagram.box(x, y, 3.6, 1.4, text, kind)
        if column:
            diagram.arrow((x - 0.6, y + 0.7), (x - 0.2, y + 0.7))
    return diagram
