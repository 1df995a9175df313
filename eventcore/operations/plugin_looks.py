"""Looking at plugins at work: health, figures, log lines, and calls under the debugger."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

from eventcore.engine import Engine
from eventcore.kernel.context import caller
from eventcore.kernel.errors import InvalidInput
from eventcore.operations.shapes import instant
from eventcore.operations.times import when
from eventcore.plugins.logbook import Line

#: Recorded calls that one answer of `metrics` looks at: the newest ones.
MAX_CALLS = 50_000


async def health(engine: Engine, name: str | None = None) -> list[dict[str, Any]]:
    """How one plugin is, or each that is or should be in use."""
    records = [engine.plugins.get(name)] if name is not None else engine.plugins.list()
    context = engine.bus.context()
    reports = [await engine.plugins.health.check(one, context) for one in records]
    return [asdict(report) for report in reports if name is not None or report.status != "off"]


@dataclass(slots=True)
class _Figures:
    calls: int = 0
    failures: int = 0
    last: float = 0.0
    seconds: list[float] = field(default_factory=list)


async def metrics(engine: Engine, name: str | None = None, since: str | float | None = None) -> list[dict[str, Any]]:
    """Figures of one plugin, or of each that was called, from the recorded direct calls of intents; how many memories
    of it there are; how often it could not be started.

    They survive restarts. Calls within runs are told by their step events, and counted by the engine's own metrics.
    """
    slug = engine.plugins.get(name).slug if name is not None else None
    found: defaultdict[str, _Figures] = defaultdict(_Figures)
    if slug is not None:
        found[slug] = _Figures()
    for type_ in ("plugin_called", "plugin_error"):
        query = engine.history.query(
            type=type_,
            source=f"/plugins/{slug}" if slug else None,
            since=when(since, "since"),
            newest_first=True,
            limit=MAX_CALLS,
        )
        async for event in query:
            one, data = found[str(event.data.get("plugin"))], event.data
            one.calls += 1
            one.failures += type_ == "plugin_error" or data.get("status") == "failed"
            one.last = max(one.last, event.at)
            if isinstance(data.get("seconds"), int | float):
                one.seconds.append(data["seconds"])
    memories = {owner: count for owner, count, _ in await engine.store.memory_owners(engine.tenant)}
    failed = await _starts_failed(engine, slug, since)
    return [
        {**_row(plugin, found[plugin]), "memories": memories.get(plugin, 0), "starts_failed": failed.get(plugin, 0)}
        for plugin in sorted({*found, *failed})
    ]


async def _starts_failed(engine: Engine, slug: str | None, since: str | float | None) -> Counter[str]:
    """How often each plugin could not be enabled or started."""
    query = engine.history.query(
        type="plugin_failed", subject=slug, since=when(since, "since"), newest_first=True, limit=MAX_CALLS
    )
    return Counter([str(event.data.get("plugin")) async for event in query])


def _row(plugin: str, one: _Figures) -> dict[str, Any]:
    times = sorted(one.seconds)
    return {
        "plugin": plugin,
        "calls": one.calls,
        "failures": one.failures,
        "failure_rate": round(one.failures / one.calls, 4) if one.calls else 0.0,
        "mean_seconds": round(sum(times) / len(times), 6) if times else None,
        "p95_seconds": times[math.ceil(0.95 * len(times)) - 1] if times else None,
        "last_used": instant(one.last),
    }


async def scrape(engine: Engine, name: str | None = None) -> str:
    """This engine's plugin metrics in the Prometheus text format; of one plugin, or of all."""
    slug = engine.plugins.get(name).slug if name is not None else None
    return "\n".join(_samples(engine.metrics.text().splitlines(), slug)) + "\n"


def _samples(lines: Iterable[str], slug: str | None) -> Iterable[str]:
    for line in lines:
        about = line.split(" ", 3)[2] if line.startswith("#") else line
        if not about.startswith(("plugin_", "memory_writes_total")):
            continue
        if line.startswith("#") or slug is None or f'plugin="{slug}"' in line:
            yield line


async def logs(
    engine: Engine,
    send: Callable[[Any], Awaitable[None]],
    name: str,
    limit: int = 100,
    follow: bool = False,
) -> dict[str, Any]:
    """Send the newest log lines of a plugin, oldest first; with `follow`, each later one as it is written."""
    if not 1 <= limit <= 10_000:
        raise InvalidInput("limit is between 1 and 10,000")
    slug, sent = engine.plugins.get(name).slug, 0
    for line in engine.plugins.logbook.newest(slug, limit):
        await send(_line(line))
        sent += 1
    if follow:
        async for line in engine.plugins.logbook.follow(slug):
            await send(_line(line))
            sent += 1
    return {"lines": sent}


def _line(line: Line) -> dict[str, Any]:
    body = asdict(line)
    return {"time": instant(body.pop("at")), **body}


async def debug(
    engine: Engine,
    name: str,
    params: dict[str, Any] | None = None,
    breakpoints: list[str] | None = None,
    trace: bool = False,
    user: str | None = None,
    roles: list[str] | None = None,
) -> dict[str, Any]:
    """Call an intent under the debugger. With `user` or `roles`, as that caller; else as the operator."""
    context = engine.bus.context()
    if user is not None or roles is not None:
        context = caller(f"user:{user or 'anonymous'}", ["user"] if roles is None else roles, engine.tenant)
    await engine.plugins.ready(name)
    report = await engine.plugins.debugging.debug(
        name, params or {}, context, breakpoints=breakpoints or (), trace=trace
    )
    return report.as_dict()
