"""Pictures of what a model is made of: its bases and its learned filters."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import matplotlib
import numpy as np
import tensorflow as tf
from matplotlib.figure import Figure

from dimenet_tf.errors import UserError

matplotlib.use("Agg")

NUM_FILTERS = 15  # as in DimeNet, Fig. 5
NUM_TORSION_FILTERS = 6  # as in SphereNet, Fig. 8


def _polar_grid(cutoff: float, size: int = 181) -> tuple[np.ndarray, np.ndarray, tuple[tf.Tensor, tf.Tensor]]:
    """Angles and distances of a disk, and the flat inputs of a two-dimensional basis on it."""
    angle, distance = np.meshgrid(np.linspace(0, 2 * np.pi, size), np.linspace(0.05 * cutoff, cutoff, size))
    return angle, distance, (tf.constant(distance.ravel(), tf.float32), tf.constant(np.cos(angle).ravel(), tf.float32))


def _disks(
    functions: np.ndarray,
    angle: np.ndarray,
    distance: np.ndarray,
    shape: tuple[int, int],
    titles: Iterable[str],
    path: str | Path,
) -> None:
    """Draw (functions, n, n) on disks, angle 0 at the top."""
    rows, columns = shape
    figure = Figure(figsize=(1.6 * columns, 1.8 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, subplot_kw={"projection": "polar"}, squeeze=False).ravel()
    for ax, function, title in zip(axes, functions, titles):
        limit = np.abs(function).max() or 1.0
        ax.pcolormesh(angle, distance, function, cmap="RdBu_r", vmin=-limit, vmax=limit, rasterized=True)
        ax.set_theta_zero_location("N")
        ax.set(xticks=[], yticks=[])
        ax.set_title(title, fontsize=8)
    figure.savefig(path, dpi=110)


def basis(model: tf.keras.Model, folder: str | Path) -> list[Path]:
    """Draw the radial basis (DimeNet, Fig. 3) and the two-dimensional basis (Fig. 2) of a model, with the envelope.

    Writes `basis_radial.png` and `basis_spherical.png`.
    """
    paths = [Path(folder) / "basis_radial.png", Path(folder) / "basis_spherical.png"]
    _radial(model.rbf_layer, model, paths[0])

    layer = model.sbf_layer
    angle, distance, inputs = _polar_grid(model.cutoff)
    shape = layer.num_spherical, layer.num_radial
    values = layer(inputs).numpy().T.reshape(-1, *angle.shape)
    titles = [f"l = {degree}, n = {n + 1}" for degree in range(shape[0]) for n in range(shape[1])]
    _disks(values, angle, distance, shape, titles, paths[1])
    return paths


def _distances(model: tf.keras.Model) -> tf.Tensor:
    return tf.constant(np.linspace(0.02 * model.cutoff, model.cutoff, 500), model.dtype)


def _radial(function: Callable, model: tf.keras.Model, path: Path) -> None:
    """Draw radial functions: (n,) Angstrom -> (n, num_radial)."""
    d = _distances(model)
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for n, values in enumerate(function(d).numpy().T):
        axes.plot(d, values, label=f"n = {n + 1}")
    axes.set(xlabel="distance / Angstrom", ylabel="radial basis function (with envelope)")
    axes.legend(fontsize=7, ncols=2)
    figure.savefig(path, dpi=120)


def painn_basis(model: tf.keras.Model, folder: str | Path) -> list[Path]:
    """Draw PaiNN's radial functions times its cutoff function; writes `basis_radial.png`."""
    path = Path(folder) / "basis_radial.png"
    _radial(lambda d: model.rbf_basis(d) * model.cutoff_function(d / model.cutoff)[:, None], model, path)
    return [path]


def painn_filters(model: tf.keras.Model, folder: str | Path) -> list[Path]:
    """Draw PaiNN's first learned filters W_s, W_vs and W_vv of every block; writes `filters_0.png`, ... for each."""
    d, paths = _distances(model), []
    names = ("$W_s$", "$W_{vs}$", "$W_{vv}$")[: model.kinds]
    for b, of_block in enumerate(model.edge_filters(d)):
        figure = Figure(figsize=(4 * len(names), 3.5), layout="constrained")
        for axes, name, values in zip(figure.subplots(1, len(names), squeeze=False)[0], names, of_block):
            axes.plot(d, values[:, :NUM_FILTERS])
            axes.set(xlabel="distance / Angstrom", title=name)
        paths.append(Path(folder) / f"filters_{b}.png")
        figure.savefig(paths[-1], dpi=110)
    return paths


def filters(model: tf.keras.Model, folder: str | Path) -> list[Path]:
    """Draw the first learned filters of every interaction block (DimeNet, App. D and Fig. 5), angle 0 at the top.

    DimeNet: f_filter2,n(d, angle) = (W_SBF a_SBF)^T W_n, tensor slice n = 1. DimeNet++: W_2 W_1 a_SBF, and DPGN's
    circular representation so. The angle is the model's own (`model.conventions`). Writes `filters_0.png`, ... for each
    block.
    """
    angle, distance, inputs = _polar_grid(model.cutoff)
    features = model.sbf_layer(inputs).numpy()
    paths = []
    for b, block in enumerate(model.int_blocks):
        if hasattr(block, "dense_cbf1"):
            values = features @ block.dense_cbf1.kernel.numpy() @ block.dense_cbf2.kernel.numpy()
        elif hasattr(block, "bilinear"):
            values = features @ block.dense_sbf.kernel.numpy() @ block.bilinear.numpy()[:, :, 0].T
        elif hasattr(block, "dense_sbf1"):
            values = features @ block.dense_sbf1.kernel.numpy() @ block.dense_sbf2.kernel.numpy()
        else:
            raise UserError("this model has no directional filters (model.embeddings: nodes)")
        values = values.T[:NUM_FILTERS].reshape(-1, *angle.shape)
        paths.append(Path(folder) / f"filters_{b}.png")
        titles = [f"element {i + 1}" for i in range(len(values))]
        _disks(values, angle, distance, (-(-len(values) // 5), 5), titles, paths[-1])
    return paths


def torsion_filters(model: tf.keras.Model, folder: str | Path) -> list[Path]:
    """Draw the first learned filters of the torsion in every block (SphereNet, Fig. 6), angle 0 at the top.

    A row is a filter W_2 W_1 t_BF of distance and angle, at torsions 0, pi/2, pi and 3 pi/2; opposite angles are half a
    turn of the torsion apart. Writes `filters_0.png`, ... for each block. Where the torsion is not that to one neighbor
    (`model.torsion`), the filters of distance and angle are drawn.
    """
    if model.torsion != "published":
        return filters(model, folder)
    torsions = ("0", "\\pi/2", "\\pi", "3\\pi/2")
    angle, distance, (flat, _) = _polar_grid(model.cutoff, size=91)
    radial = tf.gather(model.sbf_layer.radial(flat), model.bessel_degrees, axis=1).numpy()
    features = []
    for quarter in range(len(torsions)):
        phi = quarter * np.pi / 2
        directions = [np.sin(angle) * np.cos(phi), np.sin(angle) * np.sin(phi), np.cos(angle)]
        harmonics = model.sbf_layer.harmonics(tf.constant(np.stack(directions, -1).reshape(-1, 3), tf.float32)).numpy()
        features.append((harmonics[:, :, None] * radial).reshape(len(radial), -1))
    paths = []
    for b, block in enumerate(model.int_blocks):
        kernel = block.dense_tbf1.kernel.numpy() @ block.dense_tbf2.kernel[:, :NUM_TORSION_FILTERS].numpy()
        values = np.stack([of_torsion @ kernel for of_torsion in features], axis=-1)  # (points, filters, torsions)
        values = np.moveaxis(values.reshape(*angle.shape, -1), -1, 0)
        titles = [f"element {i + 1}, $\\varphi = {t}$" for i in range(kernel.shape[1]) for t in torsions]
        paths.append(Path(folder) / f"filters_{b}.png")
        _disks(values, angle, distance, (kernel.shape[1], len(torsions)), titles, paths[-1])
    return paths
