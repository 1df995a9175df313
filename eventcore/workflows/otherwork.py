"""What steps do besides calling an intent: child runs, hooks, secrets filled in."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

from eventcore.hooks.caller import Hooks
from eventcore.kernel.context import CallContext
from eventcore.kernel.errors import InvalidInput, PluginFailed
from eventcore.kernel.ports import Invocation, Secrets
from eventcore.workflows.launch import Launcher
from eventcore.workflows.marks import filled, names_of
from eventcore.workflows.registry import Registry
from eventcore.workflows.scribe import Active
from eventcore.workflows.stepcalls import Parked
from eventcore.workflows.ticks import Call

#: What stands in place of a secret in outputs and errors.
MASK = "***"
#: Calls a slug that no definition has: (active, call, metadata) -> what came of it. Raises UnknownWorkflow.
External = Callable[..., Any]


class OtherWork:
    """Does steps of the kinds `workflow` and `hook`.

    Args:
        external: does a slug that is not defined here; raises UnknownWorkflow if nobody serves it.
    """

    def __init__(
        self, registry: Registry, launcher: Launcher, hooks: Hooks, secrets: Secrets, external: External
    ) -> None:
        self._registry, self._launcher, self._hooks, self._secrets = registry, launcher, hooks, secrets
        self._external = external

    def table(self) -> Mapping[str, Callable[..., Any]]:
        """By kind; `secrets` fills in those that a call names, `masked` takes them out of what came of it."""
        return {"workflow": self.child, "hook": self.hook, "secrets": self.filled, "masked": self.masked}

    async def child(self, active: Active, call: Call, metadata: Mapping[str, Any]) -> Parked | Invocation:
        """Start a run of another workflow, in the commit in which the step begins to wait for it."""
        plan, params = self._registry.find(call.intent), call.params
        if plan is None:
            found: Parked | Invocation = await self._external(active, call, metadata, self.filled(call))
            return found
        _refuse_secrets(call, "the inputs of a child run")
        if not isinstance(params, dict):
            raise InvalidInput(f"`with` of {call.path} is no mapping, so it cannot be the inputs of {call.intent}")
        context = active.context(call.path)
        staged = self._launcher.stage(plan, params, context, parent=f"{active.run.id}/{call.path}")
        return Parked("child", staged.active.run.id, staged.batch, staged.guards)

    async def hook(self, active: Active, call: Call, metadata: Mapping[str, Any]) -> Invocation:
        """Call a hook; a denial fails the step."""
        _refuse_secrets(call, "the payload of a hook")
        context: CallContext = active.context(call.path)
        outcome = await self._hooks.call(call.intent, call.params, context=context)
        if outcome.denied:
            raise PluginFailed(f"{call.intent} was denied: {outcome.reason}", kind="HookDenied")
        return Invocation({"value": outcome.value, "replies": [*outcome.replies]}, "host")

    def filled(self, call: Call) -> Any:
        """The parameters with the secrets that the definition names in them. Their values are nowhere else."""
        return filled(call.params, call.secrets, self._look_up)

    def masked(self, call: Call, value: Any) -> Any:
        """What came of a call, without the secrets that it was given."""
        return self.without(value, names_of(call.secrets))

    def without(self, value: Any, names: Collection[str]) -> Any:
        """A value without the secrets of these names."""
        hidden = {text for name in names if (text := self._secrets.get(name))}
        return _mask(value, sorted(hidden, key=len, reverse=True)) if hidden else value

    def _look_up(self, name: str) -> str:
        secret = self._secrets.get(name)
        if secret is None:
            raise InvalidInput(f"the secret {name!r} is not set", hint=f"set EVENTCORE_SECRET_{name.upper()}")
        return secret


def _refuse_secrets(call: Call, what: str) -> None:
    if call.secrets:
        raise InvalidInput(
            f"{call.path} puts a secret into {what}, which is stored", hint="name it in the step that uses it"
        )


def _mask(value: Any, hidden: list[str]) -> Any:
    if isinstance(value, str):
        for one in hidden:
            value = value.replace(one, MASK)
        return value
    if isinstance(value, dict):
        return {_mask(key, hidden): _mask(item, hidden) for key, item in value.items()}
    return [_mask(item, hidden) for item in value] if isinstance(value, list) else value
