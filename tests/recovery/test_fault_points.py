"""SIGKILL at every named fault point: everything ends as if nothing had happened, and no finished step runs again.

`make test` takes a sample of the hits of each point, by a printed seed; `EVENTCORE_PROVE=1` takes all.
"""

from __future__ import annotations

import random
from itertools import pairwise
from typing import Any

import pytest

from eventcore.kernel.faults import FAULT_POINTS, FaultPlan

pytestmark = [pytest.mark.violent, pytest.mark.timeout(900)]

#: Those on the way of runs; `test_durable_kills.py` has the rest.
OTHERS = ("delivery.", "install.", "uninstall.")
RUN_POINTS = {point: what for point, what in FAULT_POINTS.items() if not point.startswith(OTHERS)}
#: How many hits of each point are tried unless all are.
SAMPLE = 2


@pytest.fixture(scope="module")
def hits(driver: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, int]]:
    """How often each point is reached, by mode, in a life without a fault."""
    counts = {}
    for mode in ("ten", "orders"):
        folder = tmp_path_factory.mktemp(mode)
        driver.make_home(folder / "home")
        plan = FaultPlan()
        driver.anyio.run(driver.work, mode, folder / "home", folder / "log", plan)
        counts[mode] = dict(plan.hits)
    return counts


def choose(dice: random.Random, count: int, prove: bool) -> list[int]:
    """Which hits to die at, 1 to `count`."""
    return list(range(1, count + 1)) if prove else sorted(dice.sample(range(1, count + 1), min(SAMPLE, count)))


def kill_at(site: Any, mode: str, fault: str, check: Any, driver: Any, *, certain: bool = True) -> Any:
    """Die at the fault, look, start again, and check everything that must hold; what was seen before and after.

    None if the point was not reached so often; an error if it is `certain` to be.
    """
    place = site()
    ended = place.die(mode, fault)
    if ended == 0 and not certain:
        return None
    assert ended == check.killed, f"{fault} was not reached"
    before = place.seen()
    check.kept(before)
    place.restart(mode)
    after = place.seen()
    check.kept(after)
    check.not_repeated(before, after)
    check.finished(after, driver)
    # One kill interrupts at most what was being called; everything else was called once.
    for step, effects in after.effects().items():
        assert len(effects) <= (1 if step in before.stored.completed() else 2)
    return before, after


def test_every_fault_point_is_reached(hits: dict[str, dict[str, int]], report: list[str]) -> None:
    for point, what in RUN_POINTS.items():
        report.append(f"{point:20} {hits['ten'].get(point, 0):3} hits in a run of ten steps: {what}")
    assert {point for point, count in hits["ten"].items() if count} == RUN_POINTS.keys()


@pytest.mark.parametrize("point", RUN_POINTS)
def test_ten_steps_survive_a_kill(
    point: str,
    hits: dict[str, dict[str, int]],
    site: Any,
    check: Any,
    driver: Any,
    dice: random.Random,
    prove: bool,
    report: list[str],
) -> None:
    chosen = choose(dice, hits["ten"][point], prove)
    for hit in chosen:
        _, after = kill_at(site, "ten", f"{point}:{hit}", check, driver)
        assert [run.slug for run in after.stored.runs.values()] == ["ten_steps"]
        assert len(after.stored.of_type("note_taken")) == 2 * driver.NOTES
        assert len(after.stored.of_type("halfway_reached")) == 1
    report.append(f"{point:20} killed at hit {', '.join(map(str, chosen))} of {hits['ten'][point]}; all recovered")


EVENT_POINTS = [point for point in RUN_POINTS if point.startswith(("emit.", "store."))] + ["run.after_start"]


@pytest.mark.parametrize("point", EVENT_POINTS)
def test_event_and_its_run_are_one(
    point: str,
    hits: dict[str, dict[str, int]],
    site: Any,
    check: Any,
    driver: Any,
    dice: random.Random,
    prove: bool,
) -> None:
    """`check.kept` holds orders against runs right after the kill, before anything is repaired.

    Runs go on beside the emits, so how many commits share a group, and with it the number of hits, differs from life to
    life; the first hits always come.
    """
    most = hits["orders"][point]
    certain = range(1, driver.ORDERS + 1)
    for hit in choose(dice, most, prove=True) if prove else [dice.choice(certain), dice.randint(1, most)]:
        killed = kill_at(site, "orders", f"{point}:{hit}", check, driver, certain=hit in certain)
        if killed is None:
            continue
        _, after = killed
        assert len(after.stored.runs) == len(after.stored.of_type("order_placed")) == driver.ORDERS


@pytest.mark.req("H4")
@pytest.mark.parametrize("point", ["step.before_call", "step.after_call"])
def test_the_interrupted_step_keeps_its_key(point: str, site: Any, check: Any, driver: Any) -> None:
    """Killed while the third step was being called: it alone is called again, under the same key."""
    before, after = kill_at(site, "ten", f"{point}:3", check, driver)
    called_before, called_after = before.effects(), after.effects()
    run = next(iter(after.stored.runs))
    twice = [step for (_, step), effects in called_after.items() if len(effects) == 2]
    assert twice == (["s3"] if point == "step.after_call" else [])
    assert len(called_before.get((run, "s3"), [])) == (1 if twice else 0)
    third = [entry for entry in after.stored.journals[run] if entry.step == "s3"]
    kinds = [entry.event.type for entry in third]
    assert kinds == ["step_started"] * (len(third) - 1) + ["step_completed"]
    assert third[1].event.data["interrupted"] is True
    # The completion belongs to the last attempt that was made.
    assert called_after[run, "s3"][-1]["attempt"] == third[-1].attempt == len(third) - 1


def test_killed_over_and_over(site: Any, check: Any, driver: Any, dice: random.Random, prove: bool) -> None:
    """Recovery itself is killed, again and again, anywhere."""
    for _ in range(20 if prove else 1):
        place = site()
        seen = [place.seen()]
        for _ in range(10 if prove else 4):
            place.die("ten", f"{dice.choice([*RUN_POINTS])}:{dice.randint(1, 5)}")
            seen.append(place.seen())
        place.restart("ten")
        seen.append(place.seen())
        for before, after in pairwise(seen):
            check.kept(after)
            check.not_repeated(before, after)
        check.finished(seen[-1], driver)
