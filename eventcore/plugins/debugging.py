"""A call under the debugger: in a worker of its own, with a real call's checks and limits, and nothing kept of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from eventcore.kernel.context import CallContext
from eventcore.kernel.errors import InvalidInput, PluginFailed
from eventcore.plugins.bodies import call_body, direct_call
from eventcore.plugins.calls import Calls
from eventcore.plugins.host_api import CallApi
from eventcore.plugins.permissions import PluginPermission
from eventcore.plugins.registry import HostIntent, PluginRecord
from eventcore.plugins.sandbox.supervisor import Supervisor


@dataclass(frozen=True, slots=True)
class TraceLine:
    """A line that ran: the file relative to the plugin's folder, the line's number, and the function it stands in."""

    file: str
    line: int
    function: str


@dataclass(frozen=True, slots=True)
class Hit:
    """One arrival at a breakpoint, before its line ran.

    Attributes:
        breakpoint: as it was asked for.
        file, line, function: where it came to; the next line with code, if the one asked for has none.
        locals: name to `repr` of each local variable, shortened.
    """

    breakpoint: str
    file: str
    line: int
    function: str
    locals: dict[str, str]


@dataclass(frozen=True, slots=True)
class Check:
    """One permission that the call needed: for what, and whether the plugin has it."""

    permission: str
    what: str
    granted: bool


@dataclass(frozen=True, slots=True)
class DebugReport:
    """What one call under the debugger did.

    Attributes:
        plugin: its slug. intent: what was called.
        params: what the plugin's code was given, without the prompt.
        prompt: the rendered `prompt.txt`, or None without one.
        result: what it returned; None if it raised.
        error: `kind`, `message` and `trace` of what it raised; None if it returned.
        trace: the lines that ran, in order; empty unless asked for.
        breakpoints: each arrival at a breakpoint, in order.
        dropped: lines and arrivals that were too many to report.
        checks: the permissions that it needed on its way.
        effects: how many events, memories and other rows a real call would have committed; none of them was.
        stdout, stderr: what it printed.
        seconds: how long it took, the start of its worker included.
        time_limit: seconds that the call could have taken.
    """

    plugin: str
    intent: str
    params: dict[str, Any]
    prompt: str | None
    result: Any
    error: dict[str, Any] | None
    trace: list[TraceLine]
    breakpoints: list[Hit]
    dropped: int
    checks: list[Check]
    effects: dict[str, int]
    stdout: str
    stderr: str
    seconds: float
    time_limit: float

    def as_dict(self) -> dict[str, Any]:
        """The report as JSON."""
        return asdict(self)

    @classmethod
    def of(cls, body: Mapping[str, Any]) -> DebugReport:
        """The report that `as_dict` made `body` of."""
        parts = {
            "trace": [TraceLine(**line) for line in body["trace"]],
            "breakpoints": [Hit(**hit) for hit in body["breakpoints"]],
            "checks": [Check(**check) for check in body["checks"]],
        }
        return cls(**{**body, **parts})


class WatchedApi(CallApi):
    """Answers the call's requests as ever, and notes which permissions they needed."""

    checks: list[Check]

    async def need(self, permission: PluginPermission, what: str) -> None:
        self.checks.append(Check(str(permission), what, permission in self.record.granted))
        await super().need(permission, what)


class Debugging:
    """Runs calls under the debugger."""

    def __init__(self, calls: Calls, supervisor: Supervisor) -> None:
        self._calls, self._supervisor = calls, supervisor

    async def debug(
        self,
        intent: str,
        params: Mapping[str, Any],
        context: CallContext,
        *,
        breakpoints: Sequence[str] = (),
        trace: bool = False,
    ) -> DebugReport:
        """Call a plugin in a fresh worker and report what its code did.

        Roles, schemas, permissions and limits hold as in a real call. What the code stages is counted and dropped;
        what it commits at once (`emit(now=True)`, `request`) is done.

        Args:
            breakpoints: `FILE:LINE`, with the file relative to the plugin's folder.
            trace: keep the list of lines that ran.

        Raises:
            UnknownIntent, AccessDenied, InvalidPayload: as for a real call.
            PluginFailed: a breakpoint names no line (kind `NoSuchBreakpoint`), the worker could not load the plugin, or
                the call ran over a limit. What the plugin's code raises is in the report instead.
        """
        record = await self._calls.target(intent, context)
        if isinstance(record, HostIntent):
            raise InvalidInput(f"{intent} is a function of the embedder's own program; use that program's debugger")
        takes, _ = self._calls.schemas(record)
        if takes is not None:
            takes.check(params, f"parameters of {record.slug}")
        services = self._calls.services
        body = call_body(intent, params, context, direct_call(services.ids.new(), context))
        api = WatchedApi(services, record, context, True, None)
        api.checks = []
        began = services.clock.monotonic()
        answer = await self._supervisor.aside(
            self._calls.spec(record, context.tenant),
            "debug",
            {"params": body, "breakpoints": list(breakpoints), "trace": trace},
            timeout=self._calls.time_limit(record),
            host=api,
            context=self._calls.about(record, context),
        )
        seconds = round(services.clock.monotonic() - began, 6)
        return _report(intent, body, api, answer, seconds, self._calls.time_limit(record))


def _report(
    intent: str, body: dict[str, Any], api: WatchedApi, answer: Mapping[str, Any], seconds: float, limit: float
) -> DebugReport:
    found, staged = _checked(api.record, answer["result"]), api.staged
    return DebugReport(
        plugin=api.record.slug,
        intent=intent,
        params=body,
        prompt=found["prompt"],
        result=found["result"],
        error=found["error"],
        trace=[TraceLine(*line) for line in found["trace"]],
        breakpoints=[Hit(**hit) for hit in found["hits"]],
        dropped=found["dropped"],
        checks=api.checks,
        effects={"events": len(staged.log), "memories": len(staged.memory), "runs": len(staged.runs)},
        stdout=answer["stdout"],
        stderr=answer["stderr"],
        seconds=seconds,
        time_limit=limit,
    )


def _checked(record: PluginRecord, report: Any) -> dict[str, Any]:
    """The worker's report, if it is one: plugin code could have sent anything in its place.

    Raises:
        PluginFailed: it is none.
    """
    try:
        fits = (
            isinstance(report["prompt"], str | None)
            and isinstance(report["error"], dict | None)
            and isinstance(report["dropped"], int)
            and all([type(part) for part in line] == [str, int, str] for line in report["trace"])
            and all(_is_hit(hit) for hit in report["hits"])
        )
        found = {key: report[key] for key in ("prompt", "result", "error", "trace", "hits", "dropped")}
    except (TypeError, KeyError):
        fits = False
    if not fits:
        raise PluginFailed(f"{record.slug} answered the debugger with no report", kind="ProtocolViolation")
    return found


def _is_hit(hit: Any) -> bool:
    return (
        isinstance(hit, dict)
        and hit.keys() == {"breakpoint", "file", "line", "function", "locals"}
        and all(isinstance(hit[key], str) for key in ("breakpoint", "file", "function"))
        and isinstance(hit["line"], int)
        and isinstance(hit["locals"], dict)
        and all(isinstance(value, str) for value in hit["locals"].values())
    )
