"""Refuses functions and modules that are too long to be read as their steps; prints the figures: `make check` runs it.

Exit status 1 where a function or module is above its limit. The figures, by folder, are those that
CONTRIBUTING.md asks for.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles

FOLDERS = ("shared", "web", "worker", "cli", "deploy", "sandbox", "bench", "tools")
MAX_MODULE_LINES, MAX_FUNCTION_LINES = 300, 60


@dataclass(frozen=True, slots=True)
class Function:
    name: str
    line: int
    length_lines: int


@dataclass(frozen=True, slots=True)
class Module:
    path: Path
    length_lines: int
    functions: tuple[Function, ...]


def main() -> int:
    paths = subprocess.run(["git", "ls-files", "*.py"], capture_output=True, text=True, check=True).stdout.split()
    modules = [read_module(Path(path)) for path in paths if path.partition("/")[0] in FOLDERS and Path(path).is_file()]
    print(
        f"{'':9} {'lines':>6} {'modules':>7} {'functions':>9} {'per 1,000':>9} {'median':>6} {'90 %':>5} {'longest':>7}"
    )
    for folder in (*FOLDERS, ""):
        print(format_figures(folder or "all", [each for each in modules if each.path.parts[0] == folder or not folder]))
    found = [line for module in modules for line in findings(module)]
    for line in found:
        print(line)
    return 1 if found else 0


def read_module(path: Path) -> Module:
    text = path.read_text(encoding="utf-8")
    functions = [
        Function(node.name, node.lineno, (node.end_lineno or node.lineno) - node.lineno + 1)
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef)
    ]
    return Module(path, text.count("\n"), tuple(functions))


def format_figures(name: str, modules: Iterable[Module]) -> str:
    """The lengths of functions are in lines."""
    measured = list(modules)
    lines = sum(module.length_lines for module in measured)
    lengths = [function.length_lines for module in measured for function in module.functions]
    return (
        f"{name:9} {lines:6,} {len(measured):7} {len(lengths):9,} {1000 * len(lengths) / lines:9.0f} "
        f"{median(lengths):6.0f} {quantiles(lengths, n=10)[-1]:5.0f} {max(lengths):7}"
    )


def findings(module: Module) -> Iterator[str]:
    if module.length_lines > MAX_MODULE_LINES:
        yield f"{module.path}: {module.length_lines} lines, more than {MAX_MODULE_LINES}: split it by subject"
    for function in module.functions:
        if function.length_lines > MAX_FUNCTION_LINES:
            yield (
                f"{module.path}:{function.line}: {function.name} has {function.length_lines} lines, more than "
                f"{MAX_FUNCTION_LINES}: give its steps names"
            )


if __name__ == "__main__":
    sys.exit(main())
