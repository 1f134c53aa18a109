"""Pictures of a model: basis functions, learned filters and architecture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf
from ase.data import chemical_symbols
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from dimenet_tf.layers.pictures import Curves, Diagram, Disks, Picture, distances

COLORS = {"input": "#d9e6f2", "basis": "#fbe3c8", "block": "#d7ead3", "head": "#eadcf0"}


def draw_pictures(pictures: Mapping[str, Picture], folder: str | Path) -> list[Path]:
    """Draw curves and disks by the names of their files; return the files."""
    paths = []
    for name, picture in pictures.items():
        paths.append(Path(folder) / f"{name}.png")
        if isinstance(picture, Curves):
            draw_curves(picture, paths[-1])
        else:
            draw_disks(picture, paths[-1])
    return paths


def draw_curves(curves: Curves, path: str | Path) -> None:
    """Draw functions of a distance."""
    panels = curves.panels
    size = (6.0, 4.0) if len(panels) == 1 else (4.0 * len(panels), 3.5)
    figure = Figure(figsize=size, layout="constrained")
    for axes, (title, values) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items()):
        axes.plot(curves.distance, values, label=curves.names or None)
        axes.set(xlabel="distance / Angstrom", ylabel=curves.label, title=title)
        if curves.names:
            axes.legend(fontsize=7, ncols=2)
    figure.savefig(path, dpi=120)


def draw_disks(disks: Disks, path: str | Path) -> None:
    """Draw functions of a distance and an angle, angle 0 at the top."""
    rows, columns = -(-len(disks.values) // disks.columns), disks.columns
    figure = Figure(figsize=(1.6 * columns, 1.8 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, subplot_kw={"projection": "polar"}, squeeze=False).ravel()
    for ax in axes[len(disks.values) :]:
        ax.set_axis_off()
    for ax, function, title in zip(axes, disks.values, disks.titles):
        if np.isnan(function).all():
            ax.set_axis_off()
            continue
        limit = np.abs(function).max() or 1.0
        ax.pcolormesh(disks.angle, disks.distance, function, cmap="RdBu_r", vmin=-limit, vmax=limit, rasterized=True)
        ax.set_theta_zero_location("N")
        ax.set(xticks=[], yticks=[])
        ax.set_title(title, fontsize=8)
    figure.savefig(path, dpi=110)


def draw_diagram(diagram: Diagram, title: str, path: str | Path) -> None:
    """Draw boxes and arrows."""
    figure = Figure(figsize=(11, diagram.height), layout="constrained")
    axes = figure.subplots()
    axes.set(xlim=(0, 22), ylim=(-0.2, diagram.top))
    axes.axis("off")
    axes.set_title(title)
    for x, y, width, height, text, kind in diagram.boxes:
        axes.add_patch(FancyBboxPatch((x, y), width, height, boxstyle="round,pad=0.1", fc=COLORS[kind], ec="#555555"))
        axes.text(x + width / 2, y + height / 2, text, ha="center", va="center", fontsize=9)
    for start, end, color in diagram.arrows:
        axes.add_patch(FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=11, color=color))
    for x_of_points, y_of_points, color in diagram.lines:
        axes.plot(x_of_points, y_of_points, color=color, lw=1)
    for x, y, text, size in diagram.texts:
        axes.text(x, y, text, fontsize=size)
    figure.savefig(path, dpi=110)


def pair_outputs(model: tf.keras.Model, elements: Sequence[int]) -> Curves:
    """Output of the model for two atoms against their distance, for each of the first elements with itself."""
    d = distances(model.cutoff, model.dtype).numpy()[::5]
    elements = list(elements)[:6]
    R = np.zeros((len(d), 2, 3))
    R[:, 1, 0] = d
    columns = []
    for element in elements:
        store = model.graph_store([2] * len(d), [element] * (2 * len(d)), R.reshape(-1, 3))
        scalars = model(store.batch(range(len(d)))).scalars.numpy()
        columns.append(scalars[:, 0].reshape(-1, 2).sum(axis=1))
    title = "no learned filters of distance or angle to draw:\noutput for two atoms instead"
    names = [f"{chemical_symbols[element]}-{chemical_symbols[element]}" for element in elements]
    return Curves(d, {title: np.stack(columns, axis=-1)}, "first output, units of the weights", names)
