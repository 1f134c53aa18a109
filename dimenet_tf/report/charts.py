"""Charts as inline SVG. Colors are CSS variables of the page; a mark's title is shown when the pointer is on it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from dimenet_tf.report.markup import Markup, join, tag

WIDTH, HEIGHT = 460, 310
TOP, RIGHT, BOTTOM = 16, 14, 46
MAX_POINTS = 1500  # of a parity plot; more only make the page larger
BINS = 41  # of a histogram


def shown(value: float) -> str:
    """Return a number of a tick.

    Examples
    --------
    >>> shown(15000), shown(-0.25)
    ('15 000', '-0.25')
    """
    return f"{value:,.10g}".replace(",", " ")


class Axis(NamedTuple):
    """A range of numbers with a label, linear or logarithmic."""

    low: float
    high: float
    label: str
    log: bool = False

    @classmethod
    def over(cls, values: Sequence[float] | np.ndarray, label: str, log: bool = False) -> Axis:
        """Return the axis over some numbers, with a margin; those that are not finite do not count."""
        array = np.asarray(values, np.float64)
        array = array[np.isfinite(array) & ((array > 0) | (not log))]
        if not array.size:
            return cls(0.1, 1.0, label, log)
        low, high = float(array.min()), float(array.max())
        if log:
            return cls(low / 1.15, high * 1.15, label, True)
        margin = 0.04 * (high - low) or 0.5 * abs(high) or 1.0
        return cls(low - margin, high + margin, label)

    def place(self, value: float) -> float:
        """Return where a number lies, 0 at the low end and 1 at the high one."""
        if self.log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)

    def ticks(self) -> list[float]:
        """Return round numbers within the range.

        Examples
        --------
        >>> Axis(0.0, 1000.0, "step").ticks()
        [0.0, 200.0, 400.0, 600.0, 800.0, 1000.0]
        >>> Axis(0.05, 30.0, "loss", log=True).ticks()
        [0.1, 1.0, 10.0]
        """
        if self.log:
            powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            for factors in ((1,), (1, 3), (1, 2, 5)):
                found = [float(f"{f}e{p}") for p in powers for f in factors]
                found = [value for value in found if self.low <= value <= self.high]
                if len(found) >= 3:
                    return found[:: math.ceil(len(found) / 8)]
        rough = (self.high - self.low) / 5
        power = 10.0 ** math.floor(math.log10(rough))
        step = min((1, 2, 5, 10), key=lambda factor: abs(factor * power - rough)) * power
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [float(f"{i * step:.10g}") for i in range(first, last + 1)]


class Frame:
    """Axes, grid and labels of a chart; `x` and `y` map a value to its place in the picture."""

    def __init__(self, horizontal: Axis, vertical: Axis) -> None:
        self.horizontal, self.vertical = horizontal, vertical
        widest = max((len(shown(tick)) for tick in vertical.ticks()), default=1)
        self.left = 30 + 7.4 * widest

    def x(self, value: float) -> float:
        return self.left + self.horizontal.place(value) * (WIDTH - RIGHT - self.left)

    def y(self, value: float) -> float:
        return HEIGHT - BOTTOM - self.vertical.place(value) * (HEIGHT - BOTTOM - TOP)

    def draw(self, description: str, *marks: Markup, names: Mapping[float, str] | None = None) -> Markup:
        """Return the chart; `names` are written along the horizontal axis instead of numbers."""
        bottom, parts = HEIGHT - BOTTOM, []
        for tick in self.vertical.ticks():
            y = self.y(tick)
            parts.append(tag("line", x1=self.left, x2=WIDTH - RIGHT, y1=y, y2=y, class_="grid"))
            parts.append(tag("text", shown(tick), x=self.left - 7, y=y + 4, text_anchor="end"))
        for tick, name in (names or {tick: shown(tick) for tick in self._few()}).items():
            parts.append(tag("text", name, x=self.x(tick), y=bottom + 18, text_anchor="middle"))
        parts.append(tag("line", x1=self.left, x2=WIDTH - RIGHT, y1=bottom, y2=bottom, class_="axis"))
        middle = (self.left + WIDTH - RIGHT) / 2
        parts.append(tag("text", self.horizontal.label, x=middle, y=HEIGHT - 7, text_anchor="middle", class_="label"))
        at = f"translate(13 {(TOP + bottom) / 2:.0f}) rotate(-90)"
        parts.append(tag("text", self.vertical.label, transform=at, text_anchor="middle", class_="label"))
        return tag("svg", *parts, *marks, viewBox=f"0 0 {WIDTH} {HEIGHT}", role="img", aria_label=description)

    def _few(self) -> list[float]:
        ticks = self.horizontal.ticks()
        room = (WIDTH - RIGHT - self.left) / (8 * max((len(shown(tick)) for tick in ticks), default=1) + 14)
        return ticks[:: max(1, math.ceil(len(ticks) / room))]


def lines(steps: Sequence[float], curves: Mapping[str, Sequence[float]], label: str) -> Markup:
    """Draw curves over training steps on a logarithmic axis, with a legend where there are several."""
    frame = Frame(Axis.over(steps, "step"), Axis.over([v for values in curves.values() for v in values], label, True))
    marks = []
    for number, (name, values) in enumerate(curves.items()):
        points = [(s, v) for s, v in zip(steps, values) if np.isfinite(v) and v > 0]
        path = " ".join(f"{frame.x(s):.1f},{frame.y(v):.1f}" for s, v in points)
        marks.append(tag("polyline", points=path, class_=f"curve c{number}"))
        for s, v in points[:: max(1, len(points) // 200)]:
            title = tag("title", f"{name}, step {shown(s)}: {v:.4g}")
            marks.append(tag("circle", title, cx=frame.x(s), cy=frame.y(v), r=3, class_=f"point c{number}"))
        if len(curves) > 1:
            marks.append(tag("circle", cx=WIDTH - 150, cy=TOP + 8 + 18 * number, r=5, class_=f"point c{number}"))
            marks.append(tag("text", name, x=WIDTH - 138, y=TOP + 12 + 18 * number))
    return frame.draw(f"{label} over training steps", *marks)


def parity(labels: np.ndarray, predicted: np.ndarray, titles: Sequence[str], name: str) -> Markup:
    """Draw predictions against references, at most `MAX_POINTS` of them."""
    both = np.concatenate([labels, predicted])
    frame = Frame(Axis.over(both, f"reference {name}"), Axis.over(both, f"predicted {name}"))
    low, high = frame.horizontal.low, frame.horizontal.high
    ends = {"x1": frame.x(low), "x2": frame.x(high), "y1": frame.y(low), "y2": frame.y(high)}
    marks = [tag("line", **ends, class_="ideal")]
    for i in np.linspace(0, len(labels) - 1, min(len(labels), MAX_POINTS)).astype(int):
        title = tag("title", f"{titles[i]}: reference {labels[i]:.6g}, predicted {predicted[i]:.6g}")
        marks.append(tag("circle", title, cx=frame.x(labels[i]), cy=frame.y(predicted[i]), r=2.6, class_="dot"))
    return frame.draw(f"predicted against reference {name}", *marks)


def histogram(errors: np.ndarray, name: str, unit: str) -> Markup:
    """Draw how often errors of each size occur."""
    reach = float(np.abs(errors).max()) or 1.0
    counts, edges = np.histogram(errors, bins=BINS, range=(-reach, reach))
    frame = Frame(Axis(-reach, reach, f"predicted - reference {name}"), Axis(0.0, 1.05 * counts.max(), "number"))
    zero, marks = frame.y(0), []
    for count, left, right in zip(counts, edges, edges[1:]):
        if count:
            title = tag("title", f"{left:.3g} to {right:.3g} {unit}: {count}")
            width, height = frame.x(right) - frame.x(left) - 0.6, zero - frame.y(count)
            marks.append(tag("rect", title, x=frame.x(left), y=zero - height, width=width, height=height, class_="bar"))
    return frame.draw(f"histogram of the errors of {name}", *marks)


def bars(values: Mapping[str, tuple[float, int]], label: str, axis: str, what: str) -> Markup:
    """Draw a bar for each name; its value and of how many things that is the mean are in its title."""
    top = 1.08 * max(value for value, _ in values.values())
    frame = Frame(Axis(-0.6, len(values) - 0.4, axis), Axis(0.0, top or 1.0, label))
    half, zero = min(0.36, 0.09 * len(values) + 0.1), frame.y(0)
    marks = []
    for i, (name, (value, number)) in enumerate(values.items()):
        title = tag("title", f"{name}: {value:.4g}, {number} {what}")
        x, width = frame.x(i - half), frame.x(i + half) - frame.x(i - half)
        marks.append(tag("rect", title, x=x, y=frame.y(value), width=width, height=zero - frame.y(value), class_="bar"))
        if len(values) <= 8:
            marks.append(tag("text", f"{value:.3g}", x=frame.x(i), y=frame.y(value) - 4, text_anchor="middle"))
    return frame.draw(f"{label} by {axis}", *marks, names=dict(enumerate(values)))


def figure(title: str, chart: Markup, caption: str = "") -> Markup:
    """Return a chart with its title and a caption."""
    text = [tag("figcaption", caption)] if caption else []
    return tag("figure", tag("h3", title), chart, join(text))
