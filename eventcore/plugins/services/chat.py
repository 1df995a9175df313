"""Chat: reading what was said in a channel, and saying something."""

from __future__ import annotations

from typing import Any

from eventcore.kernel.errors import InvalidInput
from eventcore.kernel.event import Event
from eventcore.kernel.json import encode
from eventcore.kernel.records import EventQuery
from eventcore.plugins.host_api import CallApi, Service, number
from eventcore.plugins.permissions import PluginPermission

_MAX_TEXT = 64 * 1024
_MAX_CHANNEL = 256
_MAX_MESSAGES = 500


def table() -> dict[str, Service]:
    """The services `chat.send` and `chat.read`."""
    return {"chat.send": send, "chat.read": read}


async def send(call: CallApi, params: dict[str, Any]) -> dict[str, Any]:
    """Stage a message of the plugin; returns the id of its event, `chat_sent`."""
    channel, text = _channel(params), params.get("text")
    await call.need(PluginPermission.CHAT_ACCESS, f"say something in {channel}")
    await call.may_change(f"say something in {channel}")
    if not isinstance(text, str) or not 0 < len(text) <= _MAX_TEXT:
        raise InvalidInput(f"a message is a text of 1 to {_MAX_TEXT:,} characters")
    plugin, bus = call.record.slug, call.services.bus
    data = {"channel": channel, "text": text, "plugin": plugin}
    event = bus.build("chat_sent", data, call.context, source=f"/plugins/{plugin}", subject=channel, key=channel)
    bus.check(event)
    call.staged.log.append(event)
    return {"id": event.id}


async def read(call: CallApi, params: dict[str, Any]) -> list[dict[str, Any]]:
    """The last messages of a channel, oldest first; what the call itself has said is the newest."""
    channel, limit = _channel(params), int(number(params, "limit", 50, 1, _MAX_MESSAGES))
    await call.need(PluginPermission.CHAT_ACCESS, f"read {channel}")
    query = EventQuery(
        tenant=call.context.tenant,
        types=("on_message", "chat_sent"),
        where=(("data.channel", encode(channel)),),
        newest_first=True,
        limit=limit,
    )
    stored = reversed(await call.services.store.events(query))
    own = (one for one in call.staged.log if isinstance(one, Event) and one.type == "chat_sent")
    said = [_message(event) for event in (*stored, *(one for one in own if one.subject == channel))]
    return said[-limit:]


def _channel(params: dict[str, Any]) -> str:
    channel = params.get("channel")
    if not isinstance(channel, str) or not 0 < len(channel) <= _MAX_CHANNEL:
        raise InvalidInput(f"a channel is a name of 1 to {_MAX_CHANNEL} characters, such as #general")
    return channel


def _message(event: Event) -> dict[str, Any]:
    said = event.data
    who = said.get("plugin") or said.get("user", "anonymous")
    return {"id": event.id, "time": event.as_dict()["time"], "user": who, "text": said.get("text", "")}
