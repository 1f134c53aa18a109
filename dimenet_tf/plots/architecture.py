"""One molecule's way through a model, as a picture."""

from __future__ import annotations

from pathlib import Path

import matplotlib
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

matplotlib.use("Agg")

COLORS = {"input": "#d9e6f2", "basis": "#fbe3c8", "block": "#d7ead3", "head": "#eadcf0"}


def _canvas(height: float, top: float, title: str) -> tuple:
    """Return an empty figure, its axes (0 ... 22, 0 ... top) and functions that draw a box and an arrow."""
    figure = Figure(figsize=(11, height), layout="constrained")
    axes = figure.subplots()
    axes.set(xlim=(0, 22), ylim=(-0.2, top))
    axes.axis("off")
    axes.set_title(title)

    def box(x: float, y: float, width: float, height: float, text: str, kind: str) -> None:
        axes.add_patch(FancyBboxPatch((x, y), width, height, boxstyle="round,pad=0.1", fc=COLORS[kind], ec="#555555"))
        axes.text(x + width / 2, y + height / 2, text, ha="center", va="center", fontsize=9)

    def arrow(start: tuple[float, float], end: tuple[float, float]) -> None:
        axes.add_patch(FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=11, color="#555555"))

    return figure, axes, box, arrow


def painn_architecture(path: str | Path, last_block: str = "n", title: str = "") -> None:
    """Draw how graph, filters and blocks of PaiNN hang together (PaiNN, Fig. 2)."""
    figure, axes, box, arrow = _canvas(3.6, 7.8, title)
    box(0.2, 5.3, 3.0, 1.6, "atoms\n$Z$, $R$", "input")
    box(0.2, 1.3, 3.0, 1.6, "graph\nedges within\nthe cutoff", "input")
    box(4.4, 5.3, 2.8, 1.6, "embedding\n$s_i$; $\\vec v_i = 0$", "block")
    box(4.4, 1.3, 2.8, 1.6, "radial basis of $d_{ij}$,\nfilters $W$", "basis")
    for x, number in ((8.6, "1"), (13.9, last_block)):
        box(x, 5.3, 1.9, 1.6, f"message\n{number}", "block")
        box(x + 2.3, 5.3, 1.9, 1.6, f"update\n{number}", "block")
        arrow((x + 2.05, 6.1), (x + 2.2, 6.1))
        axes.plot([7.4, x + 0.95], [2.1, 2.1], color="#b8843a", lw=1)
        arrow((x + 0.95, 2.1), (x + 0.95, 5.1))
    axes.text(10.4, 2.3, "$W_s, W_{vs}, W_{vv}$ and directions $\\vec r_{ij}/d_{ij}$", fontsize=8)
    axes.text(13.3, 6.1, "...", ha="center", fontsize=14)
    box(18.9, 5.3, 2.8, 1.6, "read-out of $s_i$,\ngated blocks of $s_i, \\vec v_i$", "head")
    box(18.9, 1.3, 2.8, 1.6, "scalars and vectors\nof the atoms", "head")
    arrow((1.7, 5.1), (1.7, 3.1))
    arrow((3.4, 6.1), (4.2, 6.1))
    arrow((3.4, 2.1), (4.2, 2.1))
    arrow((7.4, 6.1), (8.4, 6.1))
    arrow((18.2, 6.1), (18.7, 6.1))
    arrow((20.3, 5.1), (20.3, 3.1))
    axes.text(16.9, 7.3, "$s_i, \\vec v_i$", fontsize=9)
    figure.savefig(path, dpi=110)


def architecture(
    path: str | Path, last_block: str = "n", title: str = "", angles: str = "angle (SBF)", exchange: bool = False
) -> None:
    """Draw how graph, bases and blocks of DimeNet, DimeNet++, SphereNet and DPGN hang together (DimeNet, Fig. 4).

    With `exchange` also DPGN's features of atoms, which are exchanged over global edges.
    """
    figure, axes, box, arrow = _canvas(5.2, 10.4, title)
    box(0.2, 6.3, 3.0, 1.6, "atoms\n$Z$, $R$", "input")
    box(0.2, 2.3, 3.0, 1.6, "graph\nedges within\nthe cutoff", "input")
    box(4.4, 6.3, 3.6, 1.6, "radial Bessel basis\nof $d_{ji}$ (RBF)", "basis")
    box(4.4, 2.3, 3.6, 1.6, f"spherical Fourier-Bessel\nbasis of $d_{{kj}}$, {angles}", "basis")
    columns = [(9.2, "embedding\nblock"), (12.2, "interaction\nblock 1"), (16.0, f"interaction\nblock {last_block}")]
    for x, text in columns:
        box(x, 6.3, 2.4, 1.6, text, "block")
        box(x, 2.3, 2.4, 1.6, "output\nblock", "block")
        arrow((x + 1.2, 6.1), (x + 1.2, 4.1))
        arrow((x + 1.2, 2.1), (x + 1.2, 1.1))
        axes.text(x + 1.35, 5.1, "$m_{ji}$", fontsize=9, va="center")
    axes.text(15.3, 7.1, "...", ha="center", fontsize=14)
    box(9.2, 0.1, 9.2, 0.8, "sum over blocks, then over atoms", "head")
    box(19.3, 0.1, 2.4, 0.8, "property", "head")
    if exchange:
        text = "atoms: sums of messages, exchanged up to the\nglobal cutoff, after every interaction block"
        box(0.2, 0.1, 7.8, 1.0, text, "block")
        arrow((1.7, 2.1), (1.7, 1.3))
        arrow((8.2, 0.5), (9.0, 0.5))
        for x in (12.2, 16.0):  # messages go to the atoms, which come back with the next block's input
            axes.plot([x + 0.3, x + 0.3], [6.1, 5.5], color="#4a7a40", lw=1)
        axes.plot([8.3, 8.3, 16.3], [1.0, 5.5, 5.5], color="#4a7a40", lw=1)
        axes.add_patch(FancyArrowPatch((15.7, 5.5), (15.9, 6.3), arrowstyle="-|>", mutation_scale=9, color="#4a7a40"))
        axes.text(11.0, 5.65, "$v_i$", fontsize=9)
    arrow((18.6, 0.5), (19.1, 0.5))
    arrow((1.7, 6.1), (1.7, 4.1))
    arrow((3.4, 3.6), (4.2, 6.7))
    arrow((3.4, 3.1), (4.2, 3.1))
    arrow((8.2, 7.1), (9.0, 7.1))
    arrow((11.8, 7.1), (12.0, 7.1))
    arrow((14.8, 7.1), (15.0, 7.1))
    arrow((15.6, 7.1), (15.8, 7.1))
    axes.plot([6.2, 6.2, 17.2], [8.1, 9.0, 9.0], color="#b8843a", lw=1)
    axes.plot([6.2, 6.2, 8.6, 8.6, 17.6], [4.1, 4.8, 4.8, 9.7, 9.7], color="#8a5a1a", lw=1)
    for x in (13.2, 17.0):
        arrow((x, 9.0), (x, 8.1))
        arrow((x + 0.5, 9.7), (x + 0.5, 8.1))
    axes.text(10.2, 9.1, "RBF", fontsize=8)
    names = angles.split("(")[-1].rstrip(")")
    axes.text(10.2, 9.8, f"{names}, to the directional sum over $k \\in N(j) \\setminus i$", fontsize=8)
    figure.savefig(path, dpi=110)
