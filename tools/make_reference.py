"""Write the generated pages of docs/reference: `python tools/make_reference.py` (tests/test_docs.py compares them)."""

import inspect
import re
from pathlib import Path

import click

from dimenet_tf.commands import program
from dimenet_tf.commands.console import import_tensorflow

FOLDER = Path(__file__).parents[1] / "docs/reference"
GENERATED = "<!-- written by tools/make_reference.py -->"


def table(header: list[str], rows: list[list[str]]) -> list[str]:
    """Write a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines]


def commands_page() -> str:
    """Describe every command as its --help does."""
    lines = ["# Command reference", "", GENERATED, ""]
    lines += ["The texts of `dimenet-tf COMMAND --help`. [Commands](../commands.md) is an overview.", ""]
    for name, command in program.commands.items():
        context = click.Context(command, info_name=f"dimenet-tf {name}")
        text, _, example = inspect.cleandoc(command.help or "").partition("\b\nExample:\n")
        usage = " ".join(command.collect_usage_pieces(context))
        lines += [f"## {name}", "", f"```\ndimenet-tf {name} {usage}\n```", "", as_markdown(text.strip()), ""]
        shown = [p for p in command.params if isinstance(p, click.Option) and not p.hidden]
        if shown:
            lines += [*table(["option", "default", "meaning"], [*map(option, shown)]), ""]
        if example:
            lines += ["```", inspect.cleandoc(example), "```", ""]
    return "\n".join(lines)


def as_markdown(text: str) -> str:
    """Mark options as code, and link the pages that a help text names."""
    text = re.sub(r"(?<!\w)(--[a-z][a-z-]*)", r"`\1`", text)
    return re.sub(r"docs/(\w+)\.md", r"[docs/\1.md](../\1.md)", text)


def option(parameter: click.Option) -> list[str]:
    """Write the line of one option; switches and options that may be left out have no default."""
    value = ""
    if not parameter.is_flag:
        choices = "|".join(getattr(parameter.type, "choices", ()))
        value = " " + (parameter.metavar or choices or parameter.type.name.upper())
    known = not parameter.is_flag and isinstance(parameter.default, (str, int, float))
    return [f"`{parameter.opts[0]}{value}`", f"`{parameter.default}`" if known else "", parameter.help or ""]


def hyperparameters_page() -> str:
    """List the keys of the section `model` for each architecture, from the docstrings and signatures."""
    from dimenet_tf.config.schema import defaults
    from dimenet_tf.models import MODELS

    lines = ["# Hyperparameters", "", GENERATED, ""]
    lines += ["Keys of the section `model` for each `model.name`, with the defaults."]
    lines += [
        "[Configuration](../configuration.md) describes the other sections and the keys that select variants.",
        "",
    ]
    for name, kind in MODELS.items():
        meanings = parameters(kind)
        lines += [f"## {name}", ""]
        rows: list[list[str]] = []
        for key, value in defaults(name)["model"].items():
            if key == "name":
                continue
            row = [f"`model.{key}`", f"`{value}`", meanings[key]]
            if rows and rows[-1][2] == row[2] and row[2]:
                rows[-1][:2] = [f"{before}, {new}" for before, new in zip(rows[-1][:2], row)]
            else:
                rows.append(row)
        lines += [*table(["key", "default", "meaning"], rows), ""]
    return "\n".join(lines)


def parameters(kind: type) -> dict[str, str]:
    """Read the description of each parameter from the docstring of a model."""
    section = inspect.cleandoc(kind.__doc__ or "").split("Parameters\n----------\n")[1]
    section = re.split(r"\n\w+\n-{3,}\n", section)[0]
    found = {}
    parameter = re.compile(r"^(\w[\w, ]*?)(?: : (.+))?\n((?: +.*\n?|\n)*)", re.MULTILINE)
    for names, values, text in parameter.findall(section + "\n"):
        text = " ".join(text.split())
        if "As `" in text:
            text = ""  # filled in below
        choices = f" One of {values}." if values and '"' in values else ""
        found.update(dict.fromkeys(names.split(", "), (text + choices).strip()))
    if kind.__name__ != "DimeNet":
        from dimenet_tf.models import DimeNet

        common = parameters(DimeNet)
        found = {name: text or common.get(name, "") for name, text in found.items()}
    return found


def properties_page() -> str:
    """List the properties that the library knows by name."""
    from dimenet_tf.structures.quantities import PROPERTIES

    lines = ["# Known properties", "", GENERATED, ""]
    lines += ["Targets that have a unit and a kind without further keys. [Properties and heads](../properties.md)"]
    lines += ["describes how a model predicts them, [Data](../data.md#names-and-units) how files name them.", ""]
    rows = [
        [
            f"`{name}`",
            kind.description,
            kind.unit.replace("*", "\\*"),
            ("atom" if kind.per_atom else "molecule") + f", {kind.shape}" * bool(kind.shape),
            "yes" if kind.extensive else "no",
        ]
        for name, kind in PROPERTIES.items()
    ]
    return "\n".join([*lines, *table(["name", "property", "unit", "one value for each", "extensive"], rows), ""])


PAGES = {"commands.md": commands_page, "hyperparameters.md": hyperparameters_page, "properties.md": properties_page}

if __name__ == "__main__":
    import_tensorflow()
    for page, make in PAGES.items():
        (FOLDER / page).write_text(make())
        print(FOLDER / page)
