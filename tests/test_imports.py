"""Imports run one way, and importing costs little."""

import ast
import subprocess
import sys
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "dimenet_tf"
# what each part may import of the others
ALLOWED = {
    "stack": set(),
    "errors": set(),
    "columns": set(),
    "elements": {"errors"},
    "structures": {"elements", "errors"},
    "weights": {"errors"},
    "graph": {"errors", "structures"},
    "basis": set(),
    "layers": {"graph", "basis"},
    "models": {"errors", "graph", "basis", "layers"},
    "heads": {"columns", "errors", "graph", "layers"},
    "data": {"columns", "graph", "errors", "elements", "structures"},
    "domain": {"data", "elements", "errors", "graph", "layers", "structures"},
    "admission": {"data", "domain", "elements", "errors", "structures"},
    "files": set(),
    "folders": {"elements", "errors"},
    "predictor": {"admission", "domain", "folders", "data", "graph", "models", "heads", "weights", "errors", "serving"},
    "serving": {"domain", "elements", "errors", "folders", "graph", "predictor"},
    "bulk": {"admission", "data", "domain", "errors", "files", "folders", "predictor", "structures"},
    "interop": {"basis", "data", "heads", "predictor", "weights", "errors"},
    "plots": {"errors", "predictor", "training"},
    "md": {"data", "errors", "files", "folders", "graph", "predictor", "training", "weights"}
    | {"admission", "domain", "structures"},
    "training": {"data", "files", "graph", "heads", "layers", "models", "predictor", "weights"}
    | {"errors", "plots", "config"},
    "config": {"data", "domain", "graph", "models", "heads", "predictor", "training", "errors"},
    "commands": {"bulk", "config", "data", "domain", "elements", "errors", "folders", "md", "plots", "predictor"}
    | {"structures", "training"},
    "__main__": {"commands"},
}


def imports(path: Path) -> set[str]:
    """Return the rooms that a file imports; not what it calls as a program, `python -m dimenet_tf.md.certify`."""
    found = set()
    tree = ast.parse(path.read_text())
    tree.body = [node for node in tree.body if not ast.unparse(node).startswith("if __name__ == '__main__'")]
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "dimenet_tf":
            names = [node.module] if "." in node.module else [f"dimenet_tf.{alias.name}" for alias in node.names]
            found |= {name.split(".")[1] for name in names} - {"__version__"}
        if isinstance(node, ast.Import):
            found |= {a.name.split(".")[0] for a in node.names if a.name.split(".")[0] == "sacred"}
    return found


def test_imports_run_one_way():
    seen = set()
    for path in PACKAGE.rglob("*.py"):
        part = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if part == "__init__":
            continue
        seen.add(part)
        wrong = imports(path) - ALLOWED[part] - {part}
        assert not wrong, f"{path.relative_to(PACKAGE)} imports {wrong}"
    assert seen == set(ALLOWED)


def test_models_do_not_import_each_other():
    for path in (PACKAGE / "models").glob("*.py"):
        if path.stem in ("__init__", "hyperparameters"):
            continue
        source = path.read_text()
        others = {p.stem for p in path.parent.glob("*.py")} - {path.stem, "__init__", "hyperparameters"}
        assert not any(f"dimenet_tf.models.{other} " in source for other in others)


def test_importing_the_package_imports_nothing_heavy():
    code = "import sys, dimenet_tf; print([m for m in ('tensorflow', 'scipy', 'sympy', 'ase') if m in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


def test_reading_data_does_not_import_sacred_or_addons():
    code = (
        "import sys, dimenet_tf.training.trainer; "
        "print([m for m in ('sacred', 'tensorflow_addons', 'sympy', 'matplotlib') if m in sys.modules])"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip().endswith("[]")
