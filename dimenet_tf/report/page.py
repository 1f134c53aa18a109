"""The page: facts of a run as sections of one HTML file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import yaml

from dimenet_tf.errors import UserError
from dimenet_tf.predictor.domain import LARGER, MARGIN, NOT_RECORDED
from dimenet_tf.report import charts
from dimenet_tf.report.facts import Errors, Facts, read_facts
from dimenet_tf.report.markup import Markup, join, json_script, table, tag
from dimenet_tf.runs.files import replace_text
from dimenet_tf.structures.elements import SYMBOLS, symbols
from dimenet_tf.version import __version__

STATIC = Path(__file__).parent / "static"
# a second lock: even the library for molecules can load nothing
POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"
SIZES = 10  # bars of the errors by molecule size
ARROW = 1.0  # Angstrom, length of the longest arrow of a molecule


class Section(NamedTuple):
    """A part of the page."""

    id: str
    title: str
    content: Markup


def write_report(run: str | Path, output: str | Path | None = None, limit: int | None = None) -> tuple[Path, list[str]]:
    """Write an HTML page about a training run.

    Parameters
    ----------
    run : folder of the run
    output : file to write; report.html in the run's folder where left out
    limit : largest number of test molecules to predict; None for all

    Returns
    -------
    the file, and notes on what the page lacks, one line each

    Raises
    ------
    UserError
        If the folder is no run folder, or the file cannot be written.
    """
    facts = read_facts(run, limit)
    path = Path(output) if output is not None else facts.folder.path / "report.html"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_text(path, page(facts))
    except OSError as error:
        hint = f"name another file: dimenet-tf report {run} FILE"
        raise UserError(f"the report could not be written: {error}; {hint}") from None
    return path, facts.notes


def page(facts: Facts) -> str:
    """Return the page."""
    errors = facts.errors()
    sections = [
        Section("errors", "Test errors", test_errors(facts)),
        Section("learning", "Learning curves", learning_curves(facts)),
        Section("parity", "Predicted and reference values", parity(facts, errors)),
        Section("groups", "Errors by element and molecule size", groups(facts, errors)),
        Section("outliers", "Largest errors", outliers(facts, errors)),
        Section("domain", "Domain of validity", domain(facts)),
        Section("certificate", "Certificate", certificate(facts)),
        Section("configuration", "Configuration", configuration(facts)),
    ]
    title = f"{facts.config['model']['name']}: {', '.join(_targets(facts))}"
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=POLICY),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("title", f"{title} ({facts.folder.path.name})"),
        tag("style", Markup((STATIC / "page.css").read_text())),
    )
    header = tag(
        "header",
        tag("h1", title),
        tag("p", _introduction(facts), class_="soft"),
        *(tag("p", note[0].upper() + note[1:], ".", class_="note") for note in facts.notes),
        tiles(facts),
        tag("nav", *(tag("a", section.title, href=f"#{section.id}") for section in sections)),
    )
    body = [tag("section", tag("h2", s.title), s.content, id=s.id) for s in sections]
    footer = tag(
        "footer",
        tag("p", f"Written by dimenet_tf {__version__}. Molecules are drawn by 3Dmol.js 2.5.5.", class_="soft"),
        tag("details", tag("summary", "License of 3Dmol.js"), tag("pre", (STATIC / "3Dmol-LICENSE.txt").read_text())),
    )
    drawing = []
    if errors:
        scripts = [(STATIC / name).read_text(encoding="utf-8") for name in ("3Dmol-min.js", "page.js")]
        drawing = [tag("script", Markup(script)) for script in scripts]
    document = tag("html", head, tag("body", header, tag("main", *body), footer, *drawing), lang="en")
    return f"<!DOCTYPE html>\n{document}\n"


def _targets(facts: Facts) -> list[str]:
    target = facts.config["data"]["target"]
    return [target] if isinstance(target, str) else [str(name) for name in target]


def _introduction(facts: Facts) -> str:
    parts = [f"Training run {facts.folder.path}"]
    if facts.data is not None:
        split = facts.data["split"]
        numbers = f"{split['train']} training, {split['valid']} validation and {split['test']} test molecules"
        parts.append(f"{facts.data['source']}: {numbers} of {symbols(facts.data['elements'])}")
    if facts.predictor is not None:
        model = facts.predictor.model
        parts.append(f"{model.count_params():,} parameters, cutoff {model.cutoff:g} Ang".replace(",", " ", 1))
    return ". ".join(parts) + "."


def tiles(facts: Facts) -> Markup:
    """Return the test MAE of each property in large type."""
    if facts.evaluation is None:
        return join([])
    baseline = facts.evaluation.baseline["targets"]
    found = []
    for name, row in facts.evaluation.table["targets"].items():
        trivial = f"per-element fit: {baseline[name]['mae']:.3g} {row['unit']}" if name in baseline else ""
        value = tag("b", f"{row['mae']:.3g} ", tag("small", row["unit"]))
        found.append(tag("div", f"Test MAE of {name}", value, tag("span", trivial, class_="soft"), class_="tile"))
    return tag("div", *found, class_="tiles")


def _card(*children: object) -> Markup:
    return tag("div", *children, class_="card")


def _missing(facts: Facts) -> Markup:
    return tag("p", "No predictions: ", facts.notes[-1] if facts.notes else "no label", ".", class_="soft")


def test_errors(facts: Facts) -> Markup:
    """Return the table of errors on the test molecules."""
    if facts.evaluation is None:
        return _missing(facts)
    result, baseline = facts.evaluation.table, facts.evaluation.baseline["targets"]
    rows = [
        [name, row["unit"] or "-", *(f"{row[key]:.4g}" for key in ("mae", "rmse", "max", "std_mae"))]
        + [f"{baseline[name]['mae']:.4g}" if name in baseline else "", row.get("labels", result["molecules"])]
        for name, row in result["targets"].items()
    ]
    header = ["property", "unit", "MAE", "RMSE", "largest", "MAE / spread, %", "MAE of a per-element fit", "molecules"]
    number, everything = result["molecules"], len(facts.dataset.split.test) if facts.dataset else 0
    said = f"{number} test molecules" + (f", taken evenly from {everything}" if number < everything else "")
    text = f"Errors of the model with the lowest validation error, on {said}. Of vectors they are over components."
    return join([tag("p", text, class_="soft"), _card(table(header, rows, range(2, len(header))))])


def learning_curves(facts: Facts) -> Markup:
    """Return the charts of the losses and the validation errors."""
    if not facts.metrics:
        return tag("p", "No validation yet: metrics.csv is written with the first one.", class_="soft")
    steps = [row["step"] for row in facts.metrics]
    named = {"loss": "training", "validation_loss": "validation"}
    losses = {name: [row[key] for row in facts.metrics] for key, name in named.items() if key in facts.metrics[0]}
    found = [charts.figure("Loss", charts.lines(steps, losses, "loss"), "In units of the targets' scales.")]
    units = {} if facts.predictor is None else facts.predictor.units
    for key in facts.metrics[0]:
        name = key[len("mae_") :]
        if key.startswith("mae_"):
            title = f"{name} / {units[name]}" if units.get(name) else name
            curve = {"validation": [row[key] for row in facts.metrics]}
            found.append(charts.figure(f"Validation MAE of {name}", charts.lines(steps, curve, f"MAE of {title}")))
    return tag("div", *found, class_="charts")


def parity(facts: Facts, errors: Sequence[Errors]) -> Markup:
    """Return parity plot and histogram of each property."""
    if not errors or facts.evaluation is None:
        return _missing(facts)
    found, names = [], [f"molecule {id}" for id in facts.evaluation.data.id]
    for of in errors:
        labels, predicted = of.labels.ravel(), of.predicted.ravel()
        titles = [names[row] for row in np.repeat(of.rows, of.labels.shape[1])]
        what = f"{len(labels)} components" if of.labels.shape[1] > 1 else f"{len(labels)} values"
        few = f"; {charts.MAX_POINTS} are drawn" if len(labels) > charts.MAX_POINTS else ""
        found.append(charts.figure(of.name, charts.parity(labels, predicted, titles, of.title), f"{what}{few}."))
        chart = charts.histogram(predicted - labels, of.title, of.unit)
        found.append(charts.figure(f"Errors of {of.name}", chart, f"{what}."))
    return tag("div", *found, class_="charts")


def groups(facts: Facts, errors: Sequence[Errors]) -> Markup:
    """Return the mean errors of the molecules or atoms of each element, and of each size of molecule."""
    if not errors or facts.evaluation is None:
        return _missing(facts)
    molecules, found, said = facts.evaluation.data, [], []
    contains = molecules.composition() > 0
    same = [z for z in molecules.elements if not contains[:, z].all()] == []
    for of in errors:
        if of.elements is not None:
            which = {SYMBOLS[z]: of.elements == z for z in molecules.elements}
            what, caption = "atoms", "Mean over the atoms of an element."
        else:
            which = {SYMBOLS[z]: contains[of.rows, z] for z in molecules.elements}
            what, caption = "molecules", "Mean over the molecules that contain an element."
        if of.elements is not None or not same:
            chart = charts.bars(_means(of, which), f"MAE of {of.title}", "element", what)
            found.append(charts.figure(f"{of.name} by element", chart, caption))
        if molecules.N.min() < molecules.N.max():
            chart = charts.bars(_means(of, _sizes(molecules.N[of.rows])), f"MAE of {of.title}", "atoms", what)
            found.append(charts.figure(f"{of.name} by molecule size", chart))
    if same:
        said.append(f"All test molecules contain the same elements: {symbols(molecules.elements)}.")
    if molecules.N.min() == molecules.N.max():
        said.append(f"All test molecules have {molecules.N[0]} atoms.")
    return join([*(tag("p", text, class_="soft") for text in said), tag("div", *found, class_="charts")])


def _means(of: Errors, which: dict[str, np.ndarray]) -> dict[str, tuple[float, int]]:
    sizes = of.absolute
    return {name: (float(sizes[rows].mean()), int(rows.sum())) for name, rows in which.items() if rows.any()}


def _sizes(N: np.ndarray) -> dict[str, np.ndarray]:
    """Return which molecules belong to each range of numbers of atoms."""
    step = -(-(int(N.max()) - int(N.min()) + 1) // SIZES)
    starts = range(int(N.min()), int(N.max()) + 1, step)
    return {f"{n}" if step == 1 else f"{n}-{n + step - 1}": (n <= N) & (n + step > N) for n in starts}


def outliers(facts: Facts, errors: Sequence[Errors]) -> Markup:
    """Return the molecules with the largest errors, and the viewer that draws them."""
    if not errors or facts.evaluation is None:
        return _missing(facts)
    _, data, prediction, *_ = facts.evaluation
    rows_of_each = 10 if len(errors) < 3 else 5
    forces = next((of for of in errors if of.name == "forces"), None)
    formulas, tables = data.formulas(), []
    drawn: dict = {}
    outside = ~np.asarray(prediction.in_domain, bool) if len(prediction.in_domain) else np.zeros(len(data), bool)
    for of in errors:
        largest = of.largest(len(data))
        number_like = of.elements is None and of.labels.shape[1] == 1
        header = ["molecule", "formula", "atoms", *(["reference", "predicted"] if number_like else [])]
        header += [f"error / {of.unit}" if of.unit else "error"]
        rows = []
        for i in [int(i) for i in np.argsort(-largest, kind="stable")[:rows_of_each] if largest[i] >= 0]:
            drawn.setdefault(i, _drawing(facts, i, forces))
            size = f"{largest[i]:.4g} {of.unit}".strip()
            caption = f"Molecule {data.id[i]}, {formulas[i]}: error of {of.name} {size}"
            name = tag("button", str(data.id[i]), type="button", data_molecule=str(i), data_caption=caption)
            note = [tag("div", "outside of the domain", class_="failed")] if outside[i] else []
            row: list[object] = [join([name, *note]), formulas[i], int(data.N[i])]
            error = f"{largest[i]:.4g}"
            if number_like:
                at = int(np.flatnonzero(of.rows == i)[0])
                reference, predicted = of.labels[at, 0], of.predicted[at, 0]
                row += [f"{reference:.7g}", f"{predicted:.7g}"]
                error = f"{predicted - reference:+.4g}"
            rows.append([*row, error])
        about = "" if number_like else " (largest component)"
        tables.append(_card(tag("h3", f"{of.name}{about}"), table(header, rows, range(2, len(header)))))
    text = "Choose a molecule to draw it; drag to turn it, scroll or pinch to zoom."
    if forces is not None:
        text += " Arrows are the errors of the forces, the longest 1 Ang long."
    stage = [tag("div", id="viewer"), tag("p", id="shown"), tag("p", text, class_="soft")]
    layout = tag("div", tag("div", *tables), tag("div", *stage, class_="card stage"), class_="outliers")
    return join([layout, json_script("molecules", drawn)])


def _drawing(facts: Facts, molecule: int, forces: Errors | None) -> dict:
    """Return a molecule as the viewer takes it: a file in XYZ format and arrows, [x, y, z, dx, dy, dz] each."""
    assert facts.evaluation is not None
    one = facts.evaluation.data.select([molecule])
    R = one.R - one.R.mean(axis=0)
    lines = [f"{SYMBOLS[z]} {x:.4f} {y:.4f} {z_:.4f}" for z, (x, y, z_) in zip(one.Z, R)]
    arrows = np.empty((0, 6))
    if forces is not None and (rows := forces.rows == molecule).any():
        errors = (forces.predicted - forces.labels)[rows]
        length = np.linalg.norm(errors, axis=1)
        scaled = errors * (ARROW / (length.max() or 1.0))
        free = R if one.fixed is None else R[~one.fixed]
        arrows = np.concatenate([free, scaled], axis=1)[length > 0.1 * length.max()]
    return {"xyz": "\n".join([str(len(lines)), "", *lines]), "arrows": arrows.round(3).tolist()}


def domain(facts: Facts) -> Markup:
    """Describe the domain of validity: the training data by which the model judges molecules."""
    if facts.predictor is None:
        return _missing(facts)
    if facts.predictor.domain is None:
        return tag("p", f"The domain is {NOT_RECORDED}.", class_="soft")
    known, units = facts.predictor.domain, facts.predictor.units
    formulas = "more than 20" if known.formulas is None else ", ".join(known.formulas)
    ranges = [f"{name} {low:.5g} to {high:.5g} {units.get(name, '')}" for name, (low, high) in known.ranges.items()]
    rows: list[list[object]] = [
        ["training molecules", known.molecules],
        ["largest structure", f"{known.max_atoms} atoms; molecules above {LARGER * known.max_atoms} lie outside"],
        ["formulas", formulas],
        ["elements", symbols(facts.predictor.elements)],
        ["total charges", ", ".join(f"{charge:g}" for charge in known.charges)],
        ["spin multiplicities", ", ".join(f"{spin:g}" for spin in known.spins)],
        ["ranges of labels (extensive ones per atom)", "; ".join(ranges)],
        ["smallest distances / Ang", ", ".join(f"{pair} {distance:.3f}" for pair, distance in known.closest.items())],
    ]
    text = "Molecules unlike these are marked as outside of the domain: a formula that is not listed, for example, or "
    text += f"atoms closer than {MARGIN:g} times the smallest distance of their elements."
    if facts.evaluation is not None:
        inside = np.asarray(facts.evaluation.prediction.in_domain)
        text += f" {int((~inside).sum())} of {len(inside)} test molecules lie outside."
    return join([tag("p", text, class_="soft"), _card(table((), rows))])


def certificate(facts: Facts) -> Markup:
    """Return the certificate of a force field, or how to make one."""
    if facts.certificate is None:
        if facts.predictor is not None and facts.predictor.energy is None:
            return tag("p", "A certificate is for models with forces; this one predicts none.", class_="soft")
        make = tag("code", f"dimenet-tf certify {facts.folder.path}")
        text = "This run has no certificate. It measures whether the model is fit for dynamics; make it with "
        return tag("p", text, make, " and write this report again.", class_="soft")
    rows = []
    for name, row in facts.certificate["measured"].items():
        verdict = {True: tag("span", "passed", class_="passed"), False: tag("span", "FAILED", class_="failed")}
        bound = "" if row["bound"] is None else f"{row['bound']:.3g}"
        rows.append([name, f"{row['value']:.3g}", bound, row["unit"], verdict.get(row["passed"], "")])
    notes = [tag("p", f"Measured on {facts.certificate['frames']}.", class_="soft")]
    if facts.certificate_is_of_other_weights:
        again = f"dimenet-tf certify {facts.folder.path}"
        text = "This certificate was made of other weights than those of the run's best model; make it again: "
        notes.insert(0, tag("p", text, tag("code", again), class_="note"))
    return join([*notes, _card(table(["measurement", "measured", "bound", "unit", ""], rows, (1, 2)))])


def configuration(facts: Facts) -> Markup:
    """Return the configuration and the versions of the packages."""
    versions = "\n".join(f"{name} {version}" for name, version in facts.versions.items() if version)
    config = tag("pre", yaml.safe_dump(facts.config, sort_keys=False, allow_unicode=True))
    found = [tag("details", tag("summary", "config.yaml"), config, class_="card")]
    if versions:
        found.append(tag("details", tag("summary", "Package versions"), tag("pre", versions), class_="card"))
    if facts.data and facts.data.get("sha256"):
        found.append(tag("p", "SHA-256 of the data: ", tag("code", facts.data["sha256"]), class_="soft"))
    return join(found)
