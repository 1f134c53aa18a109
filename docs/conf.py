"""Sphinx configuration of the documentation site: `python -m sphinx -W -c docs . build/site`.

The source folder is the root of the repository, so the links between its Markdown files work as they are.
"""

from __future__ import annotations

import inspect
import re
import sys
from pathlib import Path
from typing import Any

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.util.inspect import stringify_signature

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
import dimenet_tf  # noqa: E402
from dimenet_tf.commands.console import import_tensorflow  # noqa: E402

import_tensorflow()

project = "dimenet_tf"
copyright = "the authors of dimenet_tf; MIT licence"
release = version = dimenet_tf.__version__

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
root_doc = "README"
include_patterns = [
    "*.md",
    "benchmarks/RESULTS.md",
    "dimenet_tf/data/sample/*.md",
    "docs/**.md",
    "examples/pimd/README.md",
    "pretrained/**.md",
]
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
# Only pages whose header names a kernel are notebooks. They run in temporary folders; a cell that fails ends the build.
nb_execution_mode = "force"
nb_execution_in_temp = nb_execution_raise_on_error = True
nb_execution_timeout = 300
nb_output_stderr = "remove"  # progress bars and the log of TensorFlow
highlight_language = "bash"

autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
default_role = "py:obj"  # single backticks in docstrings: a link where the object is on the site
napoleon_use_param = napoleon_use_rtype = napoleon_attr_annotations = False
napoleon_google_docstring = False
python_maximum_signature_line_length = 110
autodoc_default_options = {"exclude-members": "build, call, get_config, from_config"}

html_theme = "furo"
html_title = f"dimenet_tf {version}"
html_static_path = ["assets/site.css"]
html_css_files = ["site.css"]
html_extra_path = ["assets/index.html"]  # leads to the front page
html_math_renderer = "mathml"
html_copy_source = html_show_sourcelink = False
html_theme_options = {"navigation_with_keys": True}

# In the sidebar. README.md is the front page: it gets these lists on the site only.
NAVIGATION = {
    "Tutorials": [
        *("docs/tutorials/" + name for name in ("train", "dynamics", "serve", "spectra", "fine_tune")),
        *("docs/notebooks/dihedral", "docs/notebooks/parity"),
    ],
    "How-to": [
        *("docs/installation", "docs/commands", "docs/data", "docs/training", "docs/predicting", "docs/models"),
        *(
            "docs/forces_and_dynamics",
            "docs/crystals",
            "docs/spectra",
            "docs/serving",
            "docs/distributed",
            "docs/recipes",
        ),
        *("docs/released_weights", "examples/pimd/README", "CONTRIBUTING"),
    ],
    "Explanation": [
        *(
            "docs/explanation/walk",
            "docs/explanation/sums",
            "docs/explanation/directions",
            "docs/conventions",
            "docs/domain",
        ),
        *("docs/explanation/certificates", "docs/reliability", "benchmarks/RESULTS", "SECURITY"),
    ],
    "Reference": [
        *("docs/reference/api/index", "docs/reference/commands", "docs/configuration"),
        *("docs/reference/hyperparameters", "docs/properties", "docs/reference/properties"),
        *("docs/versions", "docs/reference/errors"),
        *("pretrained/README", "dimenet_tf/data/sample/README", "dimenet_tf/data/sample/ethanol_xtb"),
        *("dimenet_tf/data/sample/water_xtb", "dimenet_tf/data/sample/oc20_sample", "CHANGELOG"),
    ],
}
CARDS = [path.relative_to(ROOT).with_suffix("").as_posix() for path in sorted(ROOT.glob("pretrained/*/README.md"))]


def add_navigation(app: Any, page: str, source: list[str]) -> None:
    """Append the lists of pages to the pages that head them."""
    if page == root_doc:
        for caption, pages in NAVIGATION.items():
            source[0] += toctree(pages, f":caption: {caption}")
    elif page == "pretrained/README":
        source[0] += toctree(CARDS)


def toctree(pages: list[str], *options: str) -> str:
    """Write a list of pages that only the sidebar shows."""
    return "\n".join(["", "", "```{toctree}", ":hidden:", *options, "", *(f"/{page}" for page in pages), "```"])


PARAMETER = re.compile(r"^((?:\*{0,2}\w+, )*\*{0,2}\w+) : (.+)", re.MULTILINE)
TYPES = re.compile(r"(?:\b(?:bool|int|float|str|Path|None|or)\b|[\s,])+")
CHOICES = re.compile(r'"\w+"(?: \(.*?\))?(?:(?:,| or) "\w+"(?: \(.*?\))?)+')


def describe_parameter(found: re.Match) -> str:
    """Write a parameter without its type, which is in the signature."""
    names, text = found.groups()
    if TYPES.fullmatch(text):
        return names
    return f"{names}\n    {text}{'.' if CHOICES.fullmatch(text) else ''}"


def describe_values(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Take the text after a parameter's colon, and that of "Returns", as descriptions."""
    sections = re.split(r"^([A-Z]\w+)\n-{3,}\n", "\n".join(lines), flags=re.MULTILINE)
    text = sections[0]
    for title, body in zip(sections[1::2], sections[2::2]):
        if title == "Returns":
            text += ":returns: " + body.strip().replace("\n", "\n    ") + "\n\n"
            continue
        if title == "Parameters":
            body = PARAMETER.sub(describe_parameter, body)
        text += f"{title}\n{'-' * len(title)}\n{body}"
    lines[:] = text.split("\n")


def sign_class(app: Any, what: str, name: str, obj: Any, *_: Any) -> tuple[str, None] | None:
    """Give a Keras class the signature of its constructor; `__new__` of Keras takes any arguments."""
    if what != "class" or "__init__" not in vars(obj):
        return None
    signature = inspect.signature(obj).replace(return_annotation=inspect.Signature.empty)
    return stringify_signature(signature, unqualified_typehints=True), None


def visit_math(writer: Any, node: nodes.Element) -> None:
    """Write a formula as MathML, which browsers show without a script."""
    writer.body.append(convert(node.astext(), display="inline" if isinstance(node, nodes.math) else "block"))
    raise nodes.SkipNode


def setup(app: Any) -> dict[str, bool]:
    """Connect the functions above."""
    app.connect("source-read", add_navigation)
    app.connect("autodoc-process-docstring", describe_values, priority=100)  # before napoleon
    app.connect("autodoc-process-signature", sign_class)
    app.add_html_math_renderer("mathml", (visit_math, None), (visit_math, None))
    return {"parallel_read_safe": True}
