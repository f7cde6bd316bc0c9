"""Writes the file tree of src/stochroute into CONTRIBUTING.md, each line the first sentence of what it names.

python .ci/file_tree.py            # after a package or a module beside them has come, gone or changed its docstring
"""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "CONTRIBUTING.md"
BEGIN, END = "<!-- tree: .ci/file_tree.py -->\n", "<!-- end of tree -->\n"


def tree(package: Path) -> str:
    """Every package below this one and every module directly in it, one a line, alphabetically."""
    lines = [f"{package.name}/"]
    for path in sorted([*package.glob("*.py"), *(init.parent for init in package.rglob("*/__init__.py"))]):
        name = path.relative_to(package).as_posix()
        source = path / "__init__.py" if path.is_dir() else path
        lines.append(f"  {name + '/' * path.is_dir():<24}{first_sentence(source)}")
    return "\n".join(lines)


def first_sentence(source: Path) -> str:
    """The first paragraph of the module's docstring, as one line."""
    said = ast.get_docstring(ast.parse(source.read_text(encoding="utf-8")))
    if not said:
        raise ValueError(f"{source} has no docstring: say in one sentence what it is")
    return " ".join(said.partition("\n\n")[0].split())


def filled(page: str) -> str:
    """The page with today's tree between its two marks."""
    before, rest = page.split(BEGIN)
    _, after = rest.split(END)
    return f"{before}{BEGIN}```\n{tree(ROOT / 'src' / 'stochroute')}\n```\n{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
