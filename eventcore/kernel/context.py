"""The call context: on whose behalf something happens, until when, and because of what."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

DEFAULT_TENANT = "default"

#: Roles that the host itself knows. `operator` is whoever runs the engine: the embedder, the local command line.
OPERATOR_ROLES = frozenset({"operator", "admin", "developer", "power_user", "user"})

#: One entry of a causal path: (subscriber, event type, ordering key or "").
PathEntry = tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class Cause:
    """What led to a call. An event made under it inherits all of this.

    Attributes:
        event: id of the causing event, or None.
        correlation: id shared by everything that one outside act set in motion, or None for a new one.
        hops: how many handler or step emits lie between the outside act and here.
        path: the (subscriber, type, key) entries on the way; host-only.
        run: the run inside which this happens, or None.
        traceparent: W3C trace context to carry on, or None.
    """

    event: str | None = None
    correlation: str | None = None
    hops: int = 0
    path: tuple[PathEntry, ...] = ()
    run: str | None = None
    traceparent: str | None = None


#: How many handler or step emits may lie between an outside act and an event.
MAX_HOPS = 16
#: How often the same (subscriber, type, key) may stand in a causal path.
MAX_TURNS = 3


def loop_in(cause: Cause) -> str | None:
    """Why nothing more may follow from `cause`, or None if it is no loop."""
    if cause.hops > MAX_HOPS:
        return f"more than {MAX_HOPS} hops"
    if cause.path and cause.path.count(cause.path[-1]) >= MAX_TURNS:
        who, what, _ = cause.path[-1]
        return f"{who} handled {what} {MAX_TURNS} times in this chain of causes"
    return None


_OUTSIDE = Cause()


@dataclass(frozen=True, slots=True)
class CallContext:
    """Every call carries one, from every face.

    Attributes:
        tenant: whose data this is.
        actor: who acts, as `kind:name` (`user:ada`, `plugin:greeter`, `workflow:triage`, `operator`, `system`).
        roles: the caller's roles; any one of a plugin's `required_roles` suffices. The empty set means none.
        deadline: monotonic time (seconds) by which the caller wants an answer, or None.
        cause: what led to this call.
    """

    tenant: str = DEFAULT_TENANT
    actor: str = "operator"
    roles: frozenset[str] = OPERATOR_ROLES
    deadline: float | None = None
    cause: Cause = _OUTSIDE

    def because(self, cause: Cause) -> CallContext:
        """The same caller, with another cause."""
        return replace(self, cause=cause)

    def acting_as(self, actor: str, roles: Iterable[str] | None = None) -> CallContext:
        """Another actor in the same tenant and chain of causes; roles as given, or unchanged."""
        return replace(self, actor=actor, roles=self.roles if roles is None else frozenset(roles))


def caller(actor: str, roles: Iterable[str] = (), tenant: str = DEFAULT_TENANT) -> CallContext:
    """The context of somebody from outside, with just the roles given."""
    return CallContext(tenant=tenant, actor=actor, roles=frozenset(roles))


SYSTEM = CallContext(actor="system")
