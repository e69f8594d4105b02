"""The shape of the source tree: who may import whom, and what only some rooms may do.

    cli → run → {nextest, image, machine, guest} → host → config → {errors, events}

Of the four in the middle, only machine may import another one (guest).
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import vmrunner

ROOT = Path(vmrunner.__file__).resolve().parent

BELOW: dict[str, set[str]] = {
    "vmrunner": set(),
    "errors": set(),
    "events": set(),
    "config": {"errors", "events"},
    "host": {"config", "errors", "events"},
    "guest": {"host", "config", "errors", "events"},
    "machine": {"guest", "host", "config", "errors", "events"},
    "image": {"host", "config", "errors", "events"},
    "nextest": {"host", "config", "errors", "events"},
    "run": {"nextest", "image", "machine", "guest", "host", "config", "errors", "events"},
    "cli": {"run", "nextest", "image", "machine", "guest", "host", "config", "errors", "events"},
    "__main__": {"cli"},
}
"""Room -> the rooms it may import. Everyone may import vmrunner itself (its version) and their own room."""

MOST_LINES_OF_A_FILE = 400
MOST_LINES_OF_A_FUNCTION = 60
SLEEPS_IN = "host.deadline"
_RULES_MEMBERS = {"vmrunner", "__main__"}


def name_of(path: Path) -> str:
    """`host.files` for `vmrunner/host/files.py`, `host` for `vmrunner/host/__init__.py`."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts) or "vmrunner"


@cache
def modules() -> dict[str, tuple[Path, ast.Module]]:
    """Every module of the package, parsed."""
    paths = [path for path in sorted(ROOT.rglob("*.py")) if "_data" not in path.relative_to(ROOT).parts]
    return {name_of(path): (path, ast.parse(path.read_text())) for path in paths}


NAMES = sorted(modules())


def room_of(name: str) -> str:
    return name.partition(".")[0]


def imported(node: ast.AST, importer: str) -> list[str]:
    """The modules of this package that an import statement names."""
    if isinstance(node, ast.Import):
        wanted = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
        assert node.level == 0, f"{importer}:{node.lineno}: a relative import"
        base = node.module or ""
        wanted = [f"{base}.{alias.name}" for alias in node.names]
    else:
        return []
    inside = [one for one in wanted if one == "vmrunner" or one.startswith("vmrunner.")]
    return [as_module(one.removeprefix("vmrunner").lstrip(".")) for one in inside]


def as_module(dotted: str) -> str:
    """The module that `room.module.Name` lies in."""
    while dotted and dotted not in modules():
        dotted = dotted.rpartition(".")[0]
    return dotted or "vmrunner"


def import_lines(name: str) -> Iterator[tuple[int, str]]:
    """Every import of this package's modules in one of them, inside functions too."""
    for node in ast.walk(modules()[name][1]):
        for target in imported(node, name):
            yield getattr(node, "lineno", 0), target


def functions(name: str) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(modules()[name][1]):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def calls(name: str) -> Iterator[tuple[int, str, ast.Call]]:
    """Line, what is called as written (`sys.exit`), and the call."""
    for node in ast.walk(modules()[name][1]):
        if isinstance(node, ast.Call):
            yield node.lineno, ast.unparse(node.func), node


def test_every_room_of_the_tree_has_its_rule() -> None:
    assert {room_of(name) for name in NAMES} <= BELOW.keys()
    assert BELOW.keys() - _RULES_MEMBERS <= {room_of(name) for name in NAMES}


def test_the_rules_themselves_only_point_down() -> None:
    for room, below in BELOW.items():
        for other in below:
            assert room not in BELOW[other], f"{room} and {other} import each other"


@pytest.mark.parametrize("name", NAMES)
def test_imports_point_down(name: str) -> None:
    room = room_of(name)
    allowed = BELOW[room] | {room, "vmrunner"}
    wrong = [
        f"line {line}: {target}" for line, target in import_lines(name) if room_of(target) not in allowed
    ]
    assert wrong == [], f"{name} imports what it must not"


def test_no_import_cycles() -> None:
    graph = {name: {target for _, target in import_lines(name)} - {name} for name in NAMES}
    for name in NAMES:  # a package's modules need its __init__, which must not need them
        parent = name.rpartition(".")[0]
        if parent and parent in graph:
            graph[name].add(parent)
    finished: set[str] = set()

    def visit(name: str, path: list[str]) -> None:
        assert name not in path, f"a cycle: {' → '.join([*path[path.index(name) :], name])}"
        if name not in finished:
            for target in sorted(graph[name]):
                visit(target, [*path, name])
            finished.add(name)

    for name in NAMES:
        visit(name, [])


@pytest.mark.parametrize("name", [name for name in NAMES if room_of(name) not in {"cli", "__main__"}])
def test_the_packages_own_modules_are_imported_at_the_top(name: str) -> None:
    late = [
        f"line {getattr(node, 'lineno', 0)}: {target}"
        for function in functions(name)
        for node in ast.walk(function)
        for target in imported(node, name)
    ]
    assert late == [], f"{name} imports inside a function"


@pytest.mark.parametrize("name", NAMES)
def test_module_and_public_names_have_docstrings(name: str) -> None:
    tree = modules()[name][1]
    assert ast.get_docstring(tree), f"{name} has no docstring"
    public = [
        node
        for node in tree.body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        and not node.name.startswith("_")
    ]
    assert [node.name for node in public if not ast.get_docstring(node)] == []


@pytest.mark.parametrize("name", [name for name in NAMES if room_of(name) not in {"cli", "__main__"}])
def test_only_the_command_line_prints_and_exits(name: str) -> None:
    forbidden = {"print", "exit", "quit", "sys.exit", "os._exit", "input"}
    talk = ("sys.stdout.", "sys.stderr.", "click.", "rich.")
    found = [
        f"line {line}: {called}"
        for line, called, _ in calls(name)
        if called in forbidden or called.startswith(talk)
    ]
    raised = [
        f"line {node.lineno}: SystemExit"
        for node in ast.walk(modules()[name][1])
        if isinstance(node, ast.Name) and node.id == "SystemExit"
    ]
    assert found + raised == []


@pytest.mark.parametrize("name", NAMES)
def test_no_command_goes_through_a_shell(name: str) -> None:
    found = [
        f"line {line}: {called}"
        for line, called, call in calls(name)
        if called in {"os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput"}
        or any(
            keyword.arg == "shell"
            and not (isinstance(keyword.value, ast.Constant) and not keyword.value.value)
            for keyword in call.keywords
        )
    ]
    assert found == []


@pytest.mark.parametrize("name", [name for name in NAMES if name != SLEEPS_IN])
def test_only_a_deadline_sleeps(name: str) -> None:
    tree = modules()[name][1]
    used = [
        f"line {node.lineno}"
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and ast.unparse(node) == "time.sleep"
    ]
    taken = [
        f"line {node.lineno}"
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        and node.module == "time"
        and any(alias.name == "sleep" for alias in node.names)
    ]
    assert used + taken == [], f"{name} sleeps by itself instead of through a Deadline"


@pytest.mark.parametrize("name", NAMES)
def test_files_and_functions_stay_small(name: str) -> None:
    path, _ = modules()[name]
    assert len(path.read_text().splitlines()) <= MOST_LINES_OF_A_FILE
    long = {
        function.name: (function.end_lineno or 0) - function.lineno + 1
        for function in functions(name)
        if (function.end_lineno or 0) - function.lineno + 1 > MOST_LINES_OF_A_FUNCTION
    }
    assert long == {}


@pytest.mark.parametrize("name", NAMES)
def test_names_say_what_a_module_is_about(name: str) -> None:
    assert not re.search(r"(^|[._])(utils?|helpers?|managers?|common|misc)($|[._])", name)
