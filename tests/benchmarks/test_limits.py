"""What the bench makes of its samples: a miss must be a miss."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.benchmarks import run
from tests.benchmarks.measure import Limit, Line, NotMeasured, Result


def line(ours: list[float], peers: list[float], limit: Limit) -> Line:
    return Line("figure", "ms", ours, "peer" if peers else "", peers, limit)


@pytest.mark.parametrize(
    ("limit", "verdict"),
    [
        (Limit(), "-"),
        (Limit(least=10), "ok"),
        (Limit(least=10.1), "MISS"),
        (Limit(most=10), "ok"),
        (Limit(most=9.9), "MISS"),
        (Limit(least_ratio=2), "ok"),
        (Limit(least_ratio=2.1), "MISS"),
        (Limit(most_ratio=2), "ok"),
        (Limit(most_ratio=1.9), "MISS"),
        (Limit(least=10, least_ratio=3), "MISS"),
    ],
)
def test_a_limit_is_held_by_the_median(limit: Limit, verdict: str) -> None:
    assert line([1, 10, 1000], [5, 5, 500], limit).verdict() == verdict


def test_the_ratio_is_that_of_rounds_so_a_slow_round_slows_both() -> None:
    assert line([10, 40, 10], [10, 40, 10], Limit()).ratio == 1
    assert line([10, 40, 90], [10, 20, 30], Limit()).ratio == 2


def test_a_ratio_without_a_peer_and_a_figure_without_samples_miss() -> None:
    assert line([1], [], Limit(most_ratio=2)).verdict() == "MISS"
    assert Line("figure", "ms", limit=Limit(least=1), problem="no network").verdict() == "MISS"


def test_attempts_count_by_the_median_of_their_medians() -> None:
    attempts = [line([ours], [1], Limit(most_ratio=2)) for ours in (9, 1, 1.5)]
    result = Result(attempts)
    assert (result.line.value, result.line.ratio, result.line.verdict()) == (1.5, 1.5, "ok")
    assert result.span == (1, 9)


class Figure:
    """A figure that misses until its samples run out."""

    def __init__(self, *rates: float | None) -> None:
        self.rates: Iterator[float | None] = iter(rates)
        self.limit = Limit(least=300)

    def __call__(self) -> list[Line]:
        rate = next(self.rates)
        if rate is None:
            raise NotMeasured("the peer could not be installed")
        return [Line("rate", "1/s", [rate], limit=self.limit)]


def install(monkeypatch: pytest.MonkeyPatch, figure: Figure) -> None:
    monkeypatch.setattr(run, "FIGURES", {"rate": (figure, (Line("rate", "1/s", limit=figure.limit),))})
    monkeypatch.setattr(run, "machine", lambda: "a machine")


@pytest.mark.parametrize(
    ("rates", "code", "attempts"),
    [
        ((301,), 0, 1),
        ((299, 350, 350), 0, 3),
        ((299, 350, 200), 1, 3),
        ((299, 299, 900), 1, 3),
        ((299, 900, None), 0, 2),
    ],
)
def test_a_miss_is_measured_to_the_last_attempt_and_ends_with_1_if_it_stays_one(
    rates: tuple[float | None, ...],
    code: int,
    attempts: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    install(monkeypatch, Figure(*rates))
    assert run.main(["--json"]) == code
    row = json.loads(capsys.readouterr().out)
    assert (row["verdict"], row["attempts"]) == ("MISS" if code else "ok", attempts)


def test_what_cannot_be_measured_is_a_miss_with_its_reason(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    install(monkeypatch, Figure(None))
    assert run.main([]) == 1
    printed = capsys.readouterr().out
    assert "not measured" in printed
    assert "MISS: the peer could not be installed" in printed


def test_a_page_written_for_some_figures_keeps_the_rows_of_the_others() -> None:
    def row(name: str, value: str) -> tuple[str, ...]:
        return (name, value, "1 - 9", "", "", "", "-", "-")

    old = run.page([row("a", "1 ms"), row("b", "2 ms")], "a machine")
    assert [(one[0], one[1]) for one in run.merged(old, [row("b", "3 ms"), row("c", "4 ms")])] == [
        ("a", "1 ms"),
        ("b", "3 ms"),
        ("c", "4 ms"),
    ]
    assert "| a | 1 ms | 1 - 9 |" in run.page(run.merged(old, []), "a machine")


def test_a_quick_run_writes_no_page() -> None:
    with pytest.raises(SystemExit):
        run.main(["--quick", "--write"])
