"""What a plugin imports. Standard library only; nothing else of EventCore is needed beside it.

::

    from eventcore.sdk import Deny, ctx, gate

    async def run(params):
        await ctx.emit("data_processed", {"rows": 3})
        return {"rows": 3}

    @gate(priority=10)
    def on_message(message):
        if "spam" in message["text"]:
            return Deny("looks like spam")

**One `ctx` for both kinds of function.** Every method of `ctx` acts at once and returns an `Answer`. In an `async def`
handler write `rows = await ctx.memory.read("weather")`. In a plain `def` handler the call has already waited for the
host when it returns: `ctx.emit(...)` alone is enough, and `ctx.memory.read("weather").value` is the result.
"""

from __future__ import annotations

from eventcore.sdk.context import Answer, Binding, Context, bind, bound, ctx
from eventcore.sdk.errors import NoResponder, PermissionDenied, PluginError, TransientError
from eventcore.sdk.events import Event
from eventcore.sdk.outside import Finished, HttpError, Response
from eventcore.sdk.stages import HookMark, Stage, filter, gate, mark_of, observe, reply  # noqa: A004 - the stage's name
from eventcore.sdk.verdicts import Deny, Nak, Replace, Stop, Term, Verdict

__all__ = [
    "Answer",
    "Binding",
    "Context",
    "Deny",
    "Event",
    "Finished",
    "HookMark",
    "HttpError",
    "Nak",
    "NoResponder",
    "PermissionDenied",
    "PluginError",
    "Replace",
    "Response",
    "Stage",
    "Stop",
    "Term",
    "TransientError",
    "Verdict",
    "bind",
    "bound",
    "ctx",
    "filter",
    "gate",
    "mark_of",
    "observe",
    "reply",
]
