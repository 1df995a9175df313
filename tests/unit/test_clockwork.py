"""Times that are none are mistakes of the definition, told when it is read; they never reach the clock."""

from __future__ import annotations

import logging
import subprocess
import sys
from typing import Any

import anyio
import pytest
from croniter import croniter  # type: ignore[import-untyped]
from hypothesis import given, settings
from hypothesis import strategies as st

from eventcore import EventCore
from eventcore.kernel.cron import check_cron, next_time
from eventcore.kernel.errors import InvalidDefinition, InvalidInput
from eventcore.workflows.lint import check_file
from eventcore.workflows.registry import Registry

STEPS = [{"id": "a", "sleep": 0}]


@pytest.mark.parametrize(
    ("trigger", "where", "why"),
    [
        ({"cron": "0 25 * * *"}, "cron", "'0 25 * * *' is no cron line: [0 25 * * *] is not acceptable, out of range"),
        ({"cron": "* * * * * *"}, "cron", "it has 6 fields (five fields: minute, hour, day, month, weekday)"),
        ({"cron": "@daily"}, "cron", "it has 1 fields"),
        ({"cron": "30 2 30 2 *"}, "cron", "never comes"),
        ({"cron": "0 9 * mon *"}, "cron", "no cron line"),
        ({"cron": "0 9 * * jan"}, "cron", "no cron line"),
        ({"cron": "R * * * *"}, "cron", "jitter"),
        ({"cron": "0 9 * * *", "timezone": "Europe/Berln"}, "timezone", "no time zone; did you mean 'Europe/Berlin'?"),
        ({"cron": "0 9 * * *", "timezone": "../../etc/passwd"}, "timezone", "no time zone (a name such as"),
        ({"at": "tomorrow"}, "at", "'tomorrow' is no time (such as 2030-01-31T09:00:00Z)"),
        ({"at": "2030-02-30T09:00:00Z"}, "at", "is no time"),
        ({"at": "2030-01-31T09:00:00", "timezone": "Mars/Olympus"}, "timezone", "is no time zone"),
    ],
)
def test_a_time_that_is_none_is_a_mistake(trigger: dict[str, Any], where: str, why: str) -> None:
    with pytest.raises(InvalidDefinition) as caught:
        Registry().compile({"slug": "w", "triggers": [{"event": "x"}, trigger], "steps": STEPS})
    [problem] = caught.value.problems
    assert problem.key == f"triggers[1].{where}"
    assert why in problem.message


def test_validate_names_line_and_column(tmp_path: Any) -> None:
    path = tmp_path / "w.yaml"
    path.write_text('slug: w\ntriggers:\n  - cron: "0 9 * * *"\n    timezone: Berlin\nsteps:\n  - {id: a, sleep: 1s}\n')
    with pytest.raises(InvalidDefinition) as caught:
        check_file(path)
    assert [(one.line, one.column) for one in caught.value.problems] == [(4, 5)]


@pytest.mark.parametrize(
    "trigger",
    [
        {"cron": "0 9 * * mon-fri", "timezone": "Europe/Berlin"},
        {"cron": "1,2-5/2,*/7 0-23 1 JAN,feb 7"},
        {"cron": "0 0 29 2 *"},
        {"cron": "0 9 L * *"},
        {"cron": "0 9 * * mon#2"},
        {"at": "2030-01-31T09:00:00Z"},
        {"at": "2030-01-31 09:00", "timezone": "Europe/Berlin"},
    ],
)
def test_times_are_taken(trigger: dict[str, Any]) -> None:
    Registry().compile({"slug": "w", "triggers": [trigger], "steps": STEPS})


NUMBER = st.integers(0, 70).map(str)
PART = st.one_of(
    st.just("*"),
    NUMBER,
    st.tuples(NUMBER, NUMBER).map("-".join),
    st.tuples(st.one_of(st.just("*"), NUMBER), st.integers(0, 12).map(str)).map("/".join),
    st.sampled_from(["mon", "FRI", "jan", "oct-dec", "mon-wed", "L", "x"]),
)
FIELD = st.lists(PART, min_size=1, max_size=2).map(",".join)


@settings(max_examples=100, deadline=None)
@given(fields=st.tuples(FIELD, FIELD, FIELD, FIELD, FIELD))
def test_what_is_taken_comes_to_a_time(fields: tuple[str, ...]) -> None:
    """The quick look, which does without the library, takes nothing that the library refuses."""
    line = " ".join(fields)
    try:
        check_cron(line)
    except InvalidInput:
        return
    assert croniter.is_valid(line)
    assert next_time(line, "Europe/Berlin", 1e9) is not None


def test_a_plain_line_is_checked_without_the_library() -> None:
    """It takes long to load, and starts a process."""
    program = "import sys; from eventcore.kernel.cron import check_cron; check_cron('*/5 9-17 * * mon-fri')"
    program += "; sys.exit('croniter' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False, timeout=60).returncode == 0


@pytest.mark.anyio
async def test_schedules_survive_a_bug_of_ours(
    anyio_backend: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever the scheduler stumbles over, the engine goes on."""
    monkeypatch.setattr("eventcore.workflows.schedules.next_after", lambda trigger, after: 1 / 0)
    with anyio.fail_after(60):
        async with EventCore() as core:
            with caplog.at_level(logging.ERROR):
                core.workflows.define({"slug": "w", "triggers": [{"cron": "* * * * *"}], "steps": STEPS})
                while "schedules could not be kept" not in caplog.text:
                    await anyio.sleep(0.005)
            await (await core.workflows.start("w")).result(30)
