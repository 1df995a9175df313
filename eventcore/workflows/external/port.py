"""What an external engine is to us, and how a step calls one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from eventcore.kernel.errors import UnknownWorkflow
from eventcore.kernel.ports import Clock, Invocation
from eventcore.workflows.external.resume import ResumeTokens, answer_ref
from eventcore.workflows.scribe import Active
from eventcore.workflows.stepcalls import Parked
from eventcore.workflows.ticks import Call

Waiting = Literal["none", "response", "callback"]


@dataclass(frozen=True, slots=True)
class ExternalStart:
    """One call of a workflow elsewhere.

    Attributes:
        params: what `with` came to, secrets filled in; it is neither stored nor logged.
        key: the step's idempotency key, the same for every attempt.
        resume_url: where the answer is to be sent; empty unless the engine waits for a callback.
    """

    slug: str
    params: Any
    key: str
    traceparent: str
    resume_url: str = ""


class ExternalEngine(Protocol):
    """Serves workflows by slug."""

    @property
    def name(self) -> str:
        """How settings and messages call it."""

    @property
    def place(self) -> str:
        """Where it looks for a slug, for messages."""

    @property
    def wait(self) -> Waiting:
        """`none`: the step is over once it is accepted; `response`: with its response; `callback`: once it calls."""

    def serves(self, slug: str) -> bool:
        """Whether the slug is one of its own, as far as can be known without asking."""

    async def start(self, request: ExternalStart) -> Any:
        """Start it and return the response as JSON.

        Raises:
            PluginFailed: it refused (kind `ExternalRefused`), or could not be reached (`ExternalUnavailable`).
            UnknownWorkflow: it says that there is no such workflow.
        """


class Engines:
    """The external engines, asked in order. What a step does whose slug no definition here has."""

    def __init__(self, engines: Sequence[ExternalEngine], clock: Clock, tokens: ResumeTokens) -> None:
        self._engines, self._clock, self._tokens = tuple(engines), clock, tokens

    @property
    def searched(self) -> list[str]:
        """The places where they look, for messages."""
        return [f"{engine.name} at {engine.place}" for engine in self._engines]

    def find(self, slug: str) -> ExternalEngine | None:
        """The first engine that serves a slug."""
        return next((engine for engine in self._engines if engine.serves(slug)), None)

    async def __call__(
        self, active: Active, call: Call, metadata: Mapping[str, Any], params: Any
    ) -> Parked | Invocation:
        engine = self.find(call.intent)
        if engine is None:
            raise self.unknown(call.intent)
        url = ""
        ref = answer_ref(active.run.id, call.path, call.attempt)
        if engine.wait == "callback":
            url = self._tokens.url(active.run.id, call.path, call.attempt, call.epoch)
        trace = active.run.traceparent or _traceparent(active.run.id, str(metadata["idempotency_key"]))
        request = ExternalStart(call.intent, params, str(metadata["idempotency_key"]), trace, url)
        answer = await engine.start(request)
        if engine.wait == "callback":
            return Parked("answer", ref, limit=self._tokens.lifetime)
        return Invocation(answer if engine.wait == "response" else {"accepted": True}, engine.name)

    def serves(self, slug: str) -> bool:
        """Whether any of them serves a slug, as far as can be known without asking."""
        return self.find(slug) is not None

    def unknown(self, slug: str) -> UnknownWorkflow:
        """The error for a slug that nobody serves."""
        places = ["the home's workflows/", "the enabled ones of the catalogue, of plugins and of code", *self.searched]
        return UnknownWorkflow(f"there is no workflow {slug!r}", hint=f"searched: {', '.join(places)}")


def _traceparent(run: str, key: str) -> str:
    """W3C trace context: the run is the trace, so that every step of a run is seen together."""
    trace = run.replace("-", "")[:32].rjust(32, "0")
    span = "".join(one for one in key if one in "0123456789abcdef")[:16].rjust(16, "0")
    return f"00-{trace}-{span}-01"
