"""Who may call what: any one of the roles that a plugin's manifest, or an in-process intent, asks for.

One rule for every path: direct calls, requests of other plugins, workflow steps, chat commands and replies to a chat
message, from code, the command line or the control socket. Roles are flat: none holds another. Not asked for are gates,
filters, observers and event handlers: they are the host's business with the plugin, not a call that somebody makes, and
a guard that is skipped because the caller lacks a role would guard nothing.
"""

from __future__ import annotations

from eventcore.kernel.context import CallContext
from eventcore.kernel.errors import AccessDenied
from eventcore.plugins.refusals import Refusals
from eventcore.plugins.registry import HostIntent, PluginRecord


def roles_needed(target: HostIntent | PluginRecord) -> tuple[str, ...]:
    """Any one of these is enough; none are needed if it is empty."""
    return target.roles if isinstance(target, HostIntent) else target.described().required_roles


def may_call(target: HostIntent | PluginRecord, context: CallContext) -> bool:
    """Whether the caller has one of the roles."""
    needed = roles_needed(target)
    return not needed or not context.roles.isdisjoint(needed)


async def refuse(target: HostIntent | PluginRecord, what: str, context: CallContext, refusals: Refusals) -> str:
    """Write down that the caller may not call `what` (an intent, a command, a hook); return the message."""
    message = f"{what} needs one of the roles {', '.join(roles_needed(target))}; {context.actor} has none of them"
    plugin = "host" if isinstance(target, HostIntent) else target.slug
    await refusals.note(plugin, message, context, subject=what, intent=what, roles=sorted(context.roles))
    return message


async def check(target: HostIntent | PluginRecord, what: str, context: CallContext, refusals: Refusals) -> None:
    """Refuse, recorded, a caller without one of the roles.

    Raises:
        AccessDenied: the caller has none of them.
    """
    if not may_call(target, context):
        raise AccessDenied(await refuse(target, what, context, refusals))
