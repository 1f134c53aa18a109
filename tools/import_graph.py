"""Print the figures of the import graph: rooms, arrows between rooms, circles. `python tools/import_graph.py [FOLDER]`.

A room is a module or a package directly below FOLDER (default: dimenet_tf). All imports count, also those inside of
functions and those for type checkers. A circle is a set of modules, or of rooms, each of which can be reached from each
other one.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

Graph = dict[str, set[str]]


def modules_of(package: Path) -> dict[str, Path]:
    """Return the files of a package by the dotted names of their modules."""
    files = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package.parent).with_suffix("").parts
        files[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return files


def module_graph(package: Path) -> Graph:
    """Return which modules of a package each of its modules imports."""
    files = modules_of(package)
    graph: Graph = {}
    for name, path in files.items():
        tree = ast.parse(path.read_text())
        graph[name] = {found for node in ast.walk(tree) for found in _imported(node, files)} - {name}
    return graph


def _imported(node: ast.AST, files: Mapping[str, Path]) -> Iterable[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names if alias.name in files)
    elif isinstance(node, ast.ImportFrom) and node.module in files:
        for alias in node.names:
            inner = f"{node.module}.{alias.name}"
            yield inner if inner in files else node.module


def rooms(graph: Graph) -> Graph:
    """Return which rooms each room imports."""
    found: Graph = {}
    for name, imported in graph.items():
        if "." in name:
            found.setdefault(_room(name), set()).update(_room(other) for other in imported if "." in other)
    return {room: others - {room} for room, others in found.items()}


def _room(module: str) -> str:
    return module.split(".")[1]


def circles(graph: Graph) -> list[list[str]]:
    """Return the strongly connected components with more than one member (Tarjan, 1972).

    Examples
    --------
    >>> circles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"a"}})
    [['b', 'c']]
    """
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in sorted(graph.get(node, ())):
            if other not in index:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], index[other])
        if low[node] == index[node]:
            members = stack[stack.index(node) :]
            del stack[stack.index(node) :]
            if len(members) > 1:
                found.append(sorted(members))

    for node in sorted(graph):
        if node not in index:
            visit(node)
    return sorted(found)


def main() -> None:
    package = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parents[1] / "dimenet_tf")
    modules = module_graph(package)
    between = rooms(modules)
    print(f"{len(modules)} modules, {sum(map(len, modules.values()))} imports between them")
    print(f"{len(between)} rooms, {sum(map(len, between.values()))} arrows between them")
    for what, graph in (("modules", modules), ("rooms", between)):
        found = circles(graph)
        print(f"circles of {what}: {len(found)}")
        for members in found:
            print("  " + ", ".join(members))


if __name__ == "__main__":
    main()
