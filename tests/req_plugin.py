"""Notes which requirement's tests passed, for `make requirements`: `python -m pytest -p tests.req_plugin`."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

#: What the last runs found: requirement -> test -> outcome.
RECORD = Path(__file__).parents[1] / ".prove" / "requirements.json"

_found: dict[str, dict[str, str]] = {}


def read() -> dict[str, dict[str, str]]:
    """The record, empty if there is none or it is damaged."""
    try:
        found: dict[str, dict[str, str]] = json.loads(RECORD.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found


def ids_of(item: pytest.Item) -> list[str]:
    """The requirements that a test names."""
    return [str(name) for marker in item.iter_markers("req") for name in marker.args]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    report = yield
    report.requirements = ids_of(item)  # goes along to the process that runs the others, where there are several
    return report


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    for name in getattr(report, "requirements", ()):
        tests = _found.setdefault(name, {})
        # A failure in any phase stands; a skip happens in set-up, a pass is the call's.
        if report.failed:
            tests[report.nodeid] = "failed"
        elif report.skipped or report.when == "call":
            tests.setdefault(report.nodeid, report.outcome)


def pytest_sessionfinish(session: pytest.Session) -> None:
    if not _found or hasattr(session.config, "workerinput"):
        return
    record = read()
    for name, tests in _found.items():
        # A later run of one file must not forget what the other files showed.
        record.setdefault(name, {}).update(tests)
    RECORD.parent.mkdir(exist_ok=True)
    partial = RECORD.with_suffix(f".{os.getpid()}")
    partial.write_text(json.dumps(record, indent=1, sort_keys=True), encoding="utf-8")
    partial.replace(RECORD)
