"""The documentation: its Python runs and prints what it shows, its commands and keys exist, its pages are complete."""

import ast
import contextlib
import importlib.util
import inspect
import io
import re
import shlex
from pathlib import Path
from unittest import SkipTest

import click
import pytest
from sybil import Example, Sybil
from sybil.evaluators.python import PythonEvaluator
from sybil.parsers.markdown import CodeBlockParser, SkipParser

import dimenet_tf
from dimenet_tf import bulk, data, graph, interop, md, plots, predictor
from dimenet_tf.commands import program
from dimenet_tf.config.schema import defaults
from dimenet_tf.models import MODELS
from helpers.paths import ROOT

PAGES = sorted(path.relative_to(ROOT).as_posix() for path in [ROOT / "README.md", *ROOT.glob("docs/**/*.md")])
FENCE = re.compile(r"^```([^\n`]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def keys_of(model: str) -> set[str]:
    """Return the keys of a configuration: `seed`, `model.emb_size`, ..."""
    complete = defaults(model)
    sections = [section for section, value in complete.items() if isinstance(value, dict)]
    return {*complete} - {*sections} | {f"{section}.{key}" for section in sections for key in complete[section]}


ROOMS = (bulk, data, graph, interop, md, plots, predictor)
KEYS = set().union(*map(keys_of, MODELS))


def run_python(example: Example) -> None:
    """Run a block, and keep what it prints for the block of text that follows it."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        PythonEvaluator()(example)
    example.namespace["printed"] = example.region.end, printed.getvalue()


def compare_output(example: Example) -> None:
    """Compare a block of text with what the Python block right before it printed."""
    end, printed = example.namespace.get("printed", (None, ""))
    if end is not None and not example.document.text[end : example.region.start].strip("`\n"):
        assert printed == example.parsed


SYBIL = Sybil(
    parsers=[CodeBlockParser("python", run_python), CodeBlockParser("text", compare_output), SkipParser()],
)


@pytest.mark.parametrize("page", [page for page in PAGES if "```python" in (ROOT / page).read_text()])
def test_python_runs(page, tmp_path, monkeypatch):
    """All blocks of a page, in one namespace and an empty folder; `<!--- skip: next "why" -->` leaves one out."""
    monkeypatch.chdir(tmp_path)
    for example in SYBIL.parse(ROOT / page).examples():
        with contextlib.suppress(SkipTest):
            example.evaluate()


def commands_in(text: str) -> list[str]:
    """Return the lines of code blocks that call `dimenet-tf`."""
    found = []
    for language, code in FENCE.findall(text):
        if language in ("", "bash"):
            lines = code.replace("\\\n", " ").splitlines()
            found += [line for line in lines if line.startswith("dimenet-tf ")]
    return found


@pytest.mark.parametrize("page", [page for page in PAGES if commands_in((ROOT / page).read_text())])
def test_commands_and_their_options_exist(page):
    for line in commands_in((ROOT / page).read_text()):
        name, *arguments = shlex.split(line, comments=True)[1:]
        if "[OPTIONS]" in arguments or name == "COMMAND":
            continue
        command = program.commands[name]
        values, *_ = command.make_parser(click.Context(command)).parse_args(arguments)
        for argument in values.get("arguments", ()):
            path, is_key, _ = argument.partition("=")
            assert not is_key or ".".join(path.split(".")[:2]) in KEYS, line


def load(path: str):
    """Import a file that is no module of the package."""
    spec = importlib.util.spec_from_file_location(Path(path).stem, ROOT / path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("page", ["commands.md", "hyperparameters.md", "properties.md"])
def test_generated_pages_are_up_to_date(page):
    """After a change: python tools/make_reference.py."""
    assert (ROOT / "docs/reference" / page).read_text() == load("tools/make_reference.py").PAGES[page]()


@pytest.mark.parametrize("model", MODELS)
def test_every_key_is_described(model):
    described = (ROOT / "docs/configuration.md").read_text() + (ROOT / "docs/reference/hyperparameters.md").read_text()
    assert {key for key in keys_of(model) if f"`{key}`" not in described} == set()


def test_every_public_object_is_in_the_reference():
    pages = [path.read_text() for path in ROOT.glob("docs/reference/api/*.md")]
    described = set(re.findall(r"^\.\. auto\w+:: (\S+)$", "\n".join(pages), re.MULTILINE))
    public = {f"dimenet_tf.{name}" for name in dimenet_tf._EXPORTS}
    elsewhere = {"dimenet_tf.MODELS", "dimenet_tf.Calculator"}  # described in the texts of these pages
    names = {name.rpartition(".")[2] for name in described}
    assert public - elsewhere <= described
    for module in (data, md, interop):
        assert set(module.__all__) <= names
    assert {kind.__name__ for kind in MODELS.values()} <= names
    for name in described:
        assert eval(name, {"dimenet_tf": dimenet_tf})


def messages_in_source() -> str:
    """Return all string constants of the package, one a line; a value inside of an f-string is a NUL."""
    found = []
    for path in (ROOT / "dimenet_tf").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                found.append("".join(part.value if isinstance(part, ast.Constant) else "\0" for part in node.values))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return "\n".join(text.replace("\n", " ") for text in found)


def test_quoted_errors_are_those_of_the_source():
    """`<value>` stands for text that differs from message to message."""
    page, source = (ROOT / "docs/reference/errors.md").read_text(), messages_in_source()
    quoted = re.findall(r"^\| `([^`]+)` \|[^|]+\|[^|]+\|$", page.split("The tables quote")[1], re.MULTILINE)
    assert len(quoted) > 50
    fixed = {message: [re.escape(part) for part in re.split("<[^<>]+>", message) if part] for message in quoted}
    assert [message for message, parts in fixed.items() if not re.search("\0[^\n]*?".join(parts), source)] == []


def test_walk_names_at_most_14_files_and_objects_that_exist():
    page = (ROOT / "docs/explanation/walk.md").read_text()
    steps = re.findall(r"^(\d+)\. `(dimenet_tf/\S+\.py)`, `(\w+)`", page, re.MULTILINE)
    assert [int(number) for number, _, _ in steps] == [*range(1, len(steps) + 1)]
    assert len({path for _, path, _ in steps}) == len(steps) <= 14
    assert {*re.findall(r"dimenet_tf/\S+?\.py", page)} == {path for _, path, _ in steps}
    for _, path, name in steps:
        assert re.search(rf"^(def|class) {name}\b", (ROOT / path).read_text(), re.MULTILINE), (path, name)


WITHOUT_EXAMPLE = {"UncertaintyExceeded"}  # raised by `StopOnUncertainty`, whose example shows it


def test_every_public_object_has_an_example():
    """Objects of the reference with the methods that it shows, and the names that subpackages export."""
    parts = {f"{room.__name__}.{name}": getattr(room, name) for room in ROOMS for name in room.__all__}
    parts = {name: part for name, part in parts.items() if inspect.isclass(part) or inspect.isfunction(part)}
    pages = "\n".join(path.read_text() for path in ROOT.glob("docs/reference/api/*.md"))
    for name, members in re.findall(r"^\.\. auto\w+:: (\S+)(\n   :members:)?$", pages, re.MULTILINE):
        parts[name] = described = eval(name, {"dimenet_tf": dimenet_tf})
        if members and inspect.isclass(described):
            for part in vars(described):
                method = getattr(described, part)
                if not part.startswith("_") and (inspect.isfunction(method) or inspect.ismethod(method)):
                    parts[f"{name}.{part}"] = method
    missing = [name for name, part in parts.items() if ">>>" not in (part.__doc__ or "")]
    assert [name for name in missing if name.rpartition(".")[2] not in WITHOUT_EXAMPLE] == []
