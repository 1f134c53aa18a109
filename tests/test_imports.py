"""Imports run one way, and importing costs little."""

import ast
import subprocess
import sys

from helpers.paths import PACKAGE, ROOT

sys.path.insert(0, str(ROOT / "tools"))
from import_graph import circles, module_graph, modules_of, rooms

# rooms of the package from the ground up; each imports only from floors before its own
FLOORS = (
    {"errors", "stack", "version"},
    {"basis"},
    {"structures"},
    {"graph", "runs"},
    {"layers"},
    {"models", "properties"},
    {"data", "predictor"},
    {"bulk", "config", "interop", "plots"},
    {"training"},
    {"md"},
    {"report"},
    {"commands"},
    {"__main__"},
)


def test_imports_run_from_floor_to_floor():
    below: set[str] = set()
    arrows = rooms(module_graph(PACKAGE))
    for floor in FLOORS:
        for room in floor:
            assert arrows[room] <= below, f"{room} imports {arrows[room] - below}"
        below |= floor
    assert below == set(arrows)


def test_there_are_no_circles():
    assert circles(module_graph(PACKAGE)) == []


def test_circles_are_found():
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == [["a", "b", "c"]]


def test_every_folder_is_a_package():
    """`find_packages` leaves folders without an `__init__.py` out of the wheel."""
    assert {path.parent for path in PACKAGE.rglob("*.py") if not (path.parent / "__init__.py").exists()} == set()


def test_the_library_never_imports_sacred():
    for path in modules_of(PACKAGE).values():
        assert "import sacred" not in path.read_text() and "from sacred" not in path.read_text(), path


def test_models_do_not_import_each_other():
    for path in (PACKAGE / "models").glob("*.py"):
        if path.stem in ("__init__", "hyperparameters"):
            continue
        source = path.read_text()
        others = {p.stem for p in path.parent.glob("*.py")} - {path.stem, "__init__", "hyperparameters"}
        assert not any(f"dimenet_tf.models.{other} " in source for other in others)


def test_test_modules_do_not_import_each_other():
    """Shared code is in tests/helpers."""
    folder = ROOT / "tests"
    modules = [*folder.rglob("test_*.py"), *folder.rglob("conftest.py")]
    names = {path.stem for path in modules}
    assert len(modules) > 50 and len(names) == len(modules)
    for path in modules:
        for node in ast.walk(ast.parse(path.read_text())):
            imported = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                assert not node.level, f"{path}, line {node.lineno}: a relative import"
                imported = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            for name in imported:
                assert not names & set(name.split(".")), f"{path}, line {node.lineno}: import of {name}"


def test_importing_the_package_imports_nothing_heavy():
    code = "import sys, dimenet_tf; print([m for m in ('tensorflow', 'scipy', 'sympy', 'ase') if m in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


def test_reading_data_does_not_import_sacred_or_addons():
    code = (
        "import sys, dimenet_tf.training.trainer; "
        "print([m for m in ('sacred', 'tensorflow_addons', 'sympy', 'matplotlib') if m in sys.modules])"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip().endswith("[]")


def test_the_schema_of_configurations_and_data_sets_need_no_tensorflow():
    code = (
        "import sys, dimenet_tf.config.schema, dimenet_tf.config.settings; "
        "from dimenet_tf.data import DataConfig, load_dataset; "
        "load_dataset(DataConfig(target='U0,mu')).baseline(); "
        "print([m for m in ('tensorflow', 'tf_keras', 'keras') if m in sys.modules])"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"
