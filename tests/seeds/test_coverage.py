"""The table in README.md says which test runs which example: what it names is there, and what is here it names."""

from __future__ import annotations

import ast
import re
from pathlib import Path

HERE = Path(__file__).parent
TABLE = (HERE / "README.md").read_text(encoding="utf-8")
#: Tests of this folder that are about ours, not about an example.
OURS = {
    "test_an_alias_leaves_packages_of_the_callers_own_alone",
    "test_two_engines_of_one_program_share_nothing",
    "test_the_folder_of_plugins_from_the_environment",
    "test_a_text_is_a_result_too_and_async_is_supported",
    "test_extra_keys_are_kept_and_both_api_versions_read",
    "test_a_missing_required_key_is_named",
    "test_an_unknown_api_version_is_refused",
}


def functions_of(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    functions = (node for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    return {node.name for node in functions if node.name.startswith("test_")}


def test_each_test_of_the_table_is_there_and_each_here_is_in_it() -> None:
    named = {(file, test) for file, test in re.findall(r"`([\w/]+\.py)::(\w+)`", TABLE)}
    assert len(named) > 40
    missing = [one for one in sorted(named) if one[1] not in functions_of(HERE.parent / one[0])]
    assert missing == []
    here = {(f"seeds/{path.name}", test) for path in HERE.glob("test_*.py") for test in functions_of(path)}
    own = {one for one in here if one[0] == f"seeds/{Path(__file__).name}" or one[1] in OURS}
    assert here - named - own == set()


def test_each_row_has_a_test_or_a_reason() -> None:
    rows = [line for line in TABLE.splitlines() if line.startswith("| ") and not line.startswith("| Block")]
    without = [row for row in rows if "::" not in row and "later: " not in row and "nothing to run" not in row]
    assert (len(rows) > 50, without) == (True, [])
