"""The whole hook surface, on one page.

Each hook is a `HookSpec`; every spec says what is asked, of whom, and what the answers mean. The stages of a call:

1. gates, on the original payload: None, or `Deny(reason)`;
2. filters, one after the other: None, or `Replace(payload)`;
3. gates marked `recheck`, on what the filters made;
4. the event is committed, with the runs that it starts;
5. replies (None, a JSON object, or `Stop(object)`), then observers (their results are ignored).

A hook whose `record` is `never` skips the fourth stage. In a hook of mode `wrap`, replies run inside of wrappers.
"""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from eventcore.kernel.names import CORE_EVENTS

Mode = Literal["notify", "collect", "first", "wrap"]
OnError = Literal["skip", "deny", "raise"]
Record = Literal["always", "denied", "never"]


class Payload(BaseModel):
    """What a hook is called with. Fields beyond the named ones are kept."""

    model_config = ConfigDict(extra="allow")


class Message(Payload):
    """A chat message."""

    text: str = Field(max_length=64 * 1024)
    user: str = Field("anonymous", max_length=256)
    channel: str = Field("#general", max_length=256)


class FileInfo(Payload):
    """An uploaded file. `path` is where it can be read; plugins see it only with `filesystem_read`."""

    name: str = Field(max_length=1024)
    size: int = Field(ge=0)
    content_type: str = "application/octet-stream"
    sha256: str | None = None
    path: str | None = None
    user: str = "anonymous"
    channel: str = "#general"


class Command(Message):
    """A chat command: the message that held it, and what it says."""

    command: str
    args: list[str] = Field(default_factory=list)


@dataclass(frozen=True, slots=True)
class HookSpec:
    """One hook.

    Attributes:
        name: `on_<something>`; also the type of the event that a call records.
        payload: the pydantic model that a payload must satisfy; default any JSON object.
        mode: `notify` ignores answers, `collect` gathers every reply that is not None, `first` takes the first, `wrap`
            runs async generators around the first reply (see `eventcore.hooks.wrap`).
        doc: one sentence.
        timeout: seconds one handler may take.
        budget: seconds all handlers of one call may take together.
        on_error: what a failing gate or filter means: `skip` goes on without it, `deny` denies, `raise` raises
            `HookFailed`. A failing policy gate always denies.
        record: which calls are recorded: `always`; `denied`, only those; `never`, none. A call that is not recorded
            commits no event of its own, so no trigger sees it; failures of handlers are recorded all the same.
        reply: the pydantic model that replies must satisfy; None means any JSON object.
    """

    name: str
    payload: type[BaseModel] = Payload
    mode: Mode = "collect"
    doc: str = ""
    timeout: float = 5.0
    budget: float = 15.0
    on_error: OnError = "skip"
    record: Record = "always"
    reply: type[BaseModel] | None = None


HOOKS: dict[str, HookSpec] = {
    spec.name: spec
    for spec in (
        HookSpec("on_message", Message, "collect", "A chat message came in; replies are shown to its author."),
        HookSpec("on_file_upload", FileInfo, "collect", "A file was uploaded; replies are shown with it."),
        HookSpec("on_command", Command, "first", "A chat command; only the plugin that declares it is asked."),
        HookSpec("on_startup", Payload, "notify", "The engine is open and has taken up what was in flight."),
        HookSpec("on_shutdown", Payload, "notify", "The engine is about to close."),
    )
}


def likely_slip(name: str) -> str | None:
    """The hook or core event that `name` (of a function that is neither) most likely meant."""
    known = [*HOOKS, *(f"on_{event}" for event in sorted(CORE_EVENTS))]
    if name in known:
        return None
    # Strict, and without what all of them share: most functions on_<event> are meant for somebody's own event.
    found = get_close_matches(name.removeprefix("on_"), [one.removeprefix("on_") for one in known], n=1, cutoff=0.85)
    return f"on_{found[0]}" if found else None


def checked(model: type[BaseModel], data: Any) -> bytes:
    """`data` with defaults filled in, as JSON; pydantic's ValidationError if it does not fit.

    `data` must have been found to be JSON before: pydantic would write NaN as null.
    """
    return model.model_validate(data).model_dump_json().encode()
