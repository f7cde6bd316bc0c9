"""The command line is the outermost layer: nothing else knows it."""

import ast
from pathlib import Path

import stochroute

HOME = Path(stochroute.__file__).parent
ENTRY_POINTS = ("__main__.py",)


def imported(source: str) -> set[str]:
    """The names that a module imports, wherever in it, a relative import as it is written."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def knows_the_command_line(source: str) -> bool:
    return any(name == "stochroute.cli" or name.startswith("stochroute.cli.") for name in imported(source))


def test_nothing_outside_the_command_line_imports_it():
    modules = [path for path in HOME.rglob("*.py") if not path.is_relative_to(HOME / "cli")]
    assert len(modules) > 100
    knowing = [
        path.relative_to(HOME).as_posix()
        for path in modules
        if path.name not in ENTRY_POINTS and knows_the_command_line(path.read_text(encoding="utf-8"))
    ]
    assert knowing == []


def test_every_form_of_import_is_seen():
    for line in (
        "import stochroute.cli.errors",
        "from stochroute import cli",
        "from stochroute.cli import main",
        "from stochroute.cli.errors import BadInput",
        "def f():\n    from stochroute.cli.errors import BadInput",
    ):
        assert knows_the_command_line(line)
    assert not knows_the_command_line("from stochroute import paths\nimport stochroute.client")
