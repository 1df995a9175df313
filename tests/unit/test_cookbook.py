"""The ten workflows of examples/workflows: each is sound, and comes to the same end wherever the engine dies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from eventcore.testing.rehearsal import At, Rehearsal, Rehearsed, signal
from eventcore.workflows.lint import check_file

FOLDER = Path(__file__).parents[2] / "examples" / "workflows"
DAY = 86400.0


class Anything(dict[str, Any]):
    """A fake for every intent that has none of its own."""

    def get(self, name: str, default: Any = None) -> Any:
        return super().get(name) or (lambda params: {"id": name})


def play(slug: str, inputs: dict[str, Any], *events: At, **fakes: Any) -> Rehearsed:
    anything: Any = Anything(fakes)
    rehearsal = Rehearsal(FOLDER / f"{slug}.yaml", intents=anything, workflows=anything)
    return rehearsal.crash_everywhere(inputs, events=events)


def called(run: Rehearsed) -> list[str]:
    return [name for _, name, _ in run.calls]


def broken(_: Any) -> Any:
    raise ValueError("no")


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.yaml")), ids=lambda path: path.stem)
def test_each_is_sound(path: Path) -> None:
    assert [str(problem) for problem in check_file(path)[1]] == []


def test_there_are_ten() -> None:
    assert len(list(FOLDER.glob("*.yaml"))) == 10


def test_triage() -> None:
    fakes = {"classify_text": lambda _: {"label": "question"}, "answer_question": lambda _: {"watchers": ["a", "b"]}}
    yes = At(DAY, "approval_given", {"run": "run-1"})
    run = play("triage_message", {"text": "why?"}, yes, **fakes)
    assert (run.status, run.output, run.seconds) == ("completed", {"label": "question"}, DAY)
    assert called(run) == ["classify_text", "answer_question", "notify_user", "notify_user"]
    late = play("triage_message", {"text": "why?"}, **fakes)
    assert (late.status, late.seconds) == ("failed", 2 * DAY)
    assert called(late)[-1] == "retract_answer"


def test_saga() -> None:
    order = {"order": "7", "amount": 500}
    assert play("order_saga", order).output == {"charge": "charge_card"}
    run = play("order_saga", order, ship_order=broken)
    assert run.status == "failed"
    assert called(run)[-2:] == ["refund_card", "release_stock"]


def test_release() -> None:
    run = play("release_approval", {"version": "1"}, signal(60, "go"))
    assert (run.status, called(run)[-1]) == ("completed", "publish_release")
    assert play("release_approval", {"version": "1"}).status == "failed"


def test_invoice() -> None:
    inputs = {"invoice": "7", "mail": "a@b"}
    paid = play("invoice_reminders", inputs, At(DAY, "invoice_paid", {"invoice": "7"}))
    assert (called(paid), paid.emitted) == ([], [("invoice_closed", {"invoice": "7"})])
    assert called(play("invoice_reminders", inputs)) == ["send_mail"]


def test_the_others() -> None:
    assert play("nightly_report", {"title": "daily"}).calls[0][2] == {"day": "2027-01-15"}
    told = play(
        "notify_watchers", {"users": ["a", "b", "c"], "text": "x"}, notify_user=lambda p: 1 / (p["user"] != "b")
    )
    assert told.output == {"told": 2}
    assert play("onboarding", {"name": "Ada L"}).calls[0][2]["name"] == "ada-l"
    feed = {"entries": [{"link": "a"}, {"link": "b"}]}
    assert play("import_feed", {"url": "u"}, fetch_feed=lambda _: feed).output == 2
    assert play("hand_over_to_n8n", {"mail": "a@b"}, enrich_lead=lambda _: 1).emitted[0][1]["lead"] == 1
    assert called(play("escalation", {"customer": "c"})) == ["notify_user", "notify_user"]
    assert called(play("escalation", {"customer": "c"}, signal(60, "taken", {"by": "x"}))) == ["notify_user"]


@pytest.mark.parametrize("path", sorted((FOLDER.parents[1] / "workflows").glob("*.yaml")), ids=lambda path: path.stem)
def test_the_catalogues_own_end_the_same_wherever_they_crash(path: Path) -> None:
    inputs: dict[str, Any] = {"text": "why?", "question": "why?", "user": "ada", "topic": "x"}
    anything: Any = Anything({"text_classifier": lambda _: {"label": "question"}})
    run = Rehearsal(path, intents=anything, workflows=anything).crash_everywhere(inputs)
    assert run.status in ("completed", "failed")
