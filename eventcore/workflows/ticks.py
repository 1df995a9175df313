"""What happens to a run (ticks), and what is to be done about it (commands)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from eventcore.workflows.marks import Place

# -- ticks: what happened ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Begun:
    """The run starts."""

    at: float


@dataclass(frozen=True, slots=True)
class StepSucceeded:
    """An attempt ended well, or what a step waited for outside the engine did."""

    path: str
    attempt: int
    output: Any
    at: float


@dataclass(frozen=True, slots=True)
class StepParked:
    """An attempt handed its work on, to a child run or another engine, whose end comes as another tick.

    Attributes:
        waits: `child` or `answer`.
        ref: the child's run id, or what identifies the answer.
        limit: seconds that it waits at most, whatever the step's own `timeout` says.
    """

    path: str
    attempt: int
    waits: Literal["child", "answer"]
    ref: str
    at: float
    limit: float | None = None


@dataclass(frozen=True, slots=True)
class StepBroke:
    """An attempt failed.

    Attributes:
        error: `type` and `message`, as JSON.
        jitter: a random number in [0, 1), for the retry's wait.
        retry_after: seconds that the error itself asks to wait, or None.
    """

    path: str
    attempt: int
    error: dict[str, Any]
    at: float
    jitter: float
    retry_after: float | None = None


@dataclass(frozen=True, slots=True)
class TimerFired:
    """A step's wait is over.

    Attributes:
        due: the time that its row tells, or 0; after the clock was set back that is later than `at`.
    """

    path: str
    at: float
    due: float = 0.0


@dataclass(frozen=True, slots=True)
class Answered:
    """What a step waited for has come: an event, a decision, the end of a child run, another engine's answer.

    Attributes:
        ref: id of the event, or of the child run, or of the answer.
        error: why it failed (denied, the child failed), or None.
        timer: id of the timer row that carried it.
        jitter: for the retry's wait.
    """

    path: str
    ref: str
    output: Any
    error: dict[str, Any] | None
    at: float
    timer: str = ""
    jitter: float = 0.0


@dataclass(frozen=True, slots=True)
class Resumed:
    """The engine took the run over (after a crash, or because what it waited for is there)."""

    at: float


@dataclass(frozen=True, slots=True)
class Asked:
    """Somebody wants something of the run.

    Attributes:
        same_key: a retried step keeps its idempotency key.
        timer: id of the timer row that carried it, or empty.
    """

    verb: Literal["pause", "resume", "cancel", "terminate", "retry"]
    by: str
    at: float
    reason: str = ""
    same_key: bool = False
    timer: str = ""


Tick: TypeAlias = Begun | StepSucceeded | StepParked | StepBroke | TimerFired | Answered | Resumed | Asked


# -- commands: what is to be done -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Call:
    """Do what a step says, and tick with what comes of it.

    Attributes:
        intent: what is called: an intent, a workflow's slug or a hook, as `kind` says.
        epoch: of the step's idempotency key.
        secrets: where in `params` there are secrets to be.
    """

    path: str
    attempt: int
    intent: str
    params: Any
    timeout: float | None
    kind: str = "plugin"
    epoch: int = 0
    secrets: tuple[Place, ...] = ()


@dataclass(frozen=True, slots=True)
class Publish:
    """Emit an event in the same commit."""

    path: str
    type: str
    data: Any


@dataclass(frozen=True, slots=True)
class Wait:
    """Tick `TimerFired` at `due`; stored in the same commit."""

    path: str
    due: float


@dataclass(frozen=True, slots=True)
class Listen:
    """Tick `Answered` with the first event that fits; stored in the same commit, which also looks back.

    Attributes:
        match: (path into the event, value) pairs.
        consumed: ids of events that do not count any more.
    """

    path: str
    kind: Literal["event", "approval"]
    event: str
    match: dict[str, Any]
    about: dict[str, Any]
    consumed: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class End:
    """The run is over."""

    status: Literal["completed", "failed", "cancelled", "terminated"]
    output: Any = None
    error: dict[str, Any] | None = None
