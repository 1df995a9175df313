"""The whole hook surface, on one page.

Each hook is a `HookSpec`; every spec says what is asked, of whom, and what the answers mean. The stages of a call:

1. gates, on the original payload: None, or `Deny(reason)`;
2. filters, one after the other: None, or `Replace(payload)`;
3. gates marked `recheck`, on what the filters made;
4. the event is committed, with the runs that it starts;
5. replies (None, a JSON object, or `Stop(object)`), then observers (their results are ignored).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from eventcore.kernel.errors import NotFound
from eventcore.kernel.names import did_you_mean

Mode = Literal["notify", "collect", "first"]
OnError = Literal["skip", "deny", "raise"]


class Payload(BaseModel):
    """What a hook is called with. Fields beyond the named ones are kept."""

    model_config = ConfigDict(extra="allow")


class Message(Payload):
    """A chat message."""

    text: str = Field(max_length=64 * 1024)
    user: str = Field("anonymous", max_length=256)
    channel: str = Field("#general", max_length=256)


class FileInfo(Payload):
    """An uploaded file."""

    name: str = Field(max_length=1024)
    size: int = Field(ge=0)
    content_type: str = "application/octet-stream"
    sha256: str | None = None
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
        payload: the model that a payload must satisfy.
        mode: `notify` ignores answers, `collect` gathers every reply that is not None, `first` takes the first.
        timeout: seconds one handler may take.
        budget: seconds all handlers of one call may take together.
        on_error: what a failing gate or filter means: `skip` goes on without it, `deny` denies, `raise` raises
            `HookFailed`. A failing policy gate always denies.
        doc: one sentence.
    """

    name: str
    payload: type[Payload]
    mode: Mode
    doc: str
    timeout: float = 5.0
    budget: float = 15.0
    on_error: OnError = "skip"


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


def spec_of(name: str) -> HookSpec:
    """The spec of a hook.

    Raises:
        NotFound: there is no such hook; names the nearest.
    """
    spec = HOOKS.get(name)
    if spec is None:
        raise NotFound(f"there is no hook {name!r}{did_you_mean(name, HOOKS)}", hint=f"hooks: {', '.join(HOOKS)}")
    return spec


def checked(spec: HookSpec, data: Any) -> dict[str, Any]:
    """`data` with defaults filled in; pydantic's ValidationError if it does not fit."""
    return spec.payload.model_validate(data).model_dump(mode="json")
