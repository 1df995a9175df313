"""`make requirements`: which requirements have a test that names them, and whether it passed in the last run."""

from __future__ import annotations

import ast
import re
import sys
from collections import defaultdict
from pathlib import Path

from tests import req_plugin

TESTS = Path(__file__).parent
SECTIONS = {
    "A": "Events, bus and history",
    "B": "Hooks",
    "C": "Manifests, discovery, handlers",
    "D": "Lifecycle, reload, configuration, dependencies",
    "E": "Python APIs",
    "F": "Permissions, roles, limits, sandbox",
    "G": "Packages, marketplace, templates, catalogue",
    "H": "Workflows",
    "I": "Command line",
    "J": "REST, webhooks, UI, observability",
    "K": "Testing tools, documentation, quality",
    "L": "Roadmap items",
}
_ID = re.compile(r"[A-L][1-9][0-9]?")


def named(folder: Path = TESTS) -> dict[str, set[str]]:
    """Requirement -> the test files that name it, read from the source."""
    found: dict[str, set[str]] = defaultdict(set)
    for path in sorted(folder.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "req":
                for argument in node.args:
                    if isinstance(argument, ast.Constant) and _ID.fullmatch(str(argument.value)):
                        found[str(argument.value)].add(path.relative_to(folder).as_posix())
    return found


def state(tests: dict[str, str]) -> str:
    """What a requirement's tests say together."""
    for outcome in ("failed", "skipped", "passed"):
        if outcome in tests.values():
            return outcome
    return "not run"


def main() -> int:
    """Print the table; 1 if a requirement's test failed in its last run."""
    files, record = named(), req_plugin.read()
    states = {name: state(record.get(name, {})) for name in files}
    for letter, title in SECTIONS.items():
        mine = sorted((name for name in files if name[0] == letter), key=lambda name: int(name[1:]))
        passed = sum(states[name] == "passed" for name in mine)
        print(f"{letter}  {title}: {len(mine)} with a test, {passed} passed")
        for name in mine:
            print(f"   {name:4} {states[name]:8} {', '.join(sorted(files[name]))}")
    if not record:
        print("No record of a test run yet; `make test` makes one.")
    return 1 if "failed" in states.values() else 0


if __name__ == "__main__":
    sys.exit(main())
