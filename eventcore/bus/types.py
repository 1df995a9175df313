"""What is known about event types: payload models and whether they are recorded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from pydantic import BaseModel, ValidationError

from eventcore.kernel.errors import InvalidInput, InvalidName, InvalidPayload
from eventcore.kernel.event import Event
from eventcore.kernel.json import decode, encode
from eventcore.kernel.names import CORE_EVENTS, event_type, is_hook_event

#: The longest subject, key, source, actor or idempotency key, in characters.
_MAX_WORD = 1024
#: The longest dialogue that `max_turns` may permit: the chain of causes travels with each of its events.
MAX_DECLARED_TURNS = 1_000
_REMEMBERED = 4096


@dataclass(frozen=True, slots=True)
class EventType:
    """A declared type.

    Attributes:
        model: pydantic model that the payload must satisfy, or None for any JSON.
        transient: handed to subscribers without being recorded; nothing of it survives a crash.
        max_turns: how often one subscriber may handle events of this type and one key in a chain of causes; None: the
            default of 3, with the hops counted.
        version: of the payload's schema; stored with each event.
        upcast: by version, what makes its payload one of the next version. Pure functions.
        blobs: whether a payload above 256 KiB is stored beside the log, by its hash, instead of being refused.
    """

    name: str
    model: type[BaseModel] | None = None
    transient: bool = False
    max_turns: int | None = None
    version: int = 1
    upcast: Mapping[int, Callable[[Any], Any]] = field(default_factory=dict)
    blobs: bool = False


class EventTypes:
    """The declared event types of one engine. Undeclared types are recorded and take any JSON."""

    def __init__(self) -> None:
        self._types: dict[str, EventType] = {}
        #: The types whose events are handed out without being recorded.
        self.transient: set[str] = set()
        self._plain: set[str] = set()
        # Checked names, so that a type emitted a million times is checked once.
        self._emittable: dict[str, EventType] = {}

    def declare(
        self,
        name: str,
        model: type[BaseModel] | None = None,
        *,
        transient: bool = False,
        max_turns: int | None = None,
        version: int = 1,
        upcast: Mapping[int, Callable[[Any], Any]] | None = None,
        blobs: bool = False,
    ) -> EventType:
        """Declare a type, or declare it again.

        Raises:
            InvalidName: it is no event type, or one that only the host emits.
            InvalidInput: `max_turns` is not from 1 to 1,000; or `upcast` does not lead to `version` one by one; or
                `blobs` for a transient type.
        """
        name = _own_name(name)
        if version < 1 or {*(upcast or ())} != {*(range(1, version) if upcast else ())}:
            raise InvalidInput(f"{name}: upcast has a function for each version from 1 to {version - 1}, and no other")
        if max_turns is not None and not 1 <= max_turns <= MAX_DECLARED_TURNS:
            raise InvalidInput(f"max_turns is from 1 to {MAX_DECLARED_TURNS}, not {max_turns}")
        if blobs and transient:
            raise InvalidInput(f"{name} is transient: nothing of it is stored, so it has no blobs")
        declared = EventType(name, model, transient, max_turns, version, dict(upcast or {}), blobs)
        self._types[name] = declared
        self._emittable.clear()
        (self.transient.add if transient else self.transient.discard)(name)
        plain = transient and model is None and version == 1
        (self._plain.add if plain else self._plain.discard)(name)
        return declared

    def is_plain(self, name: str) -> bool:
        """Whether it is the name, as it is stored, of a transient type without a model and versions."""
        return name.__class__ is str and name in self._plain

    def is_transient(self, name: str) -> bool:
        """Whether events of this type are handed out without being recorded."""
        return name in self.transient

    def emittable(self, name: str) -> EventType:
        """What is known of a type that somebody wants to emit; an undeclared one takes any JSON and is recorded.

        Raises:
            InvalidName: it is no event type, or one that only the host emits.
        """
        found = self._emittable.get(name) if type(name) is str else None
        if found is None:
            checked = _own_name(name)
            found = self._types.get(checked) or EventType(checked)
            if len(self._emittable) >= _REMEMBERED:
                self._emittable.clear()
            self._emittable[name] = found
        return found

    def get(self, name: str) -> EventType | None:
        return self._types.get(name)

    def version(self, name: str) -> int:
        """The version of the payload of events of this type that are emitted now."""
        declared = self._types.get(name)
        return 1 if declared is None else declared.version

    def newest(self, event: Event) -> Event:
        """The event with its payload in the newest declared version of its type.

        Versions newer than the declared one stay as they are, and so do those that no `upcast` begins with.

        Raises:
            InvalidPayload: an upcast function failed, or returned what is not JSON.
        """
        declared = self._types.get(event.type)
        # The payload of one with a blob is brought up to date when somebody asks for it.
        if declared is None or event.schema_version >= declared.version or event.blob is not None:
            return event
        version, data = event.schema_version, decode(event.raw)
        while step := declared.upcast.get(version):
            try:
                data = step(data)
            except Exception as error:
                raise InvalidPayload(
                    f"{event.type}: the upcast from version {version} failed: {type(error).__name__}: {error}",
                    event=event.id,
                ) from error
            version += 1
        raw = encode(data, what=f"what the upcast of {event.type} returned")
        return replace(event, raw=raw, schema_version=version, _data=[])

    def check(self, name: str, data: Any) -> Any:
        """`data` as JSON-able values, checked against the type's model if it has one.

        Raises:
            InvalidPayload: the model refuses it; the message names each field.
        """
        declared = self._types.get(name)
        model = declared.model if declared else None
        if isinstance(data, BaseModel):
            if model is None or isinstance(data, model):
                return data.model_dump(mode="json")
            data = data.model_dump()
        if model is None:
            return data
        try:
            return model.model_validate(data).model_dump(mode="json")
        except ValidationError as error:
            raise InvalidPayload(f"{name}: {explain(error)}") from None


def _own_name(name: str) -> str:
    name = event_type(name)
    if name in CORE_EVENTS or is_hook_event(name):
        raise InvalidName(
            f"{name} belongs to the host: only the host emits {name}",
            hint="hook events come from hook calls; use a name of your own",
        )
    return name


def explain(error: ValidationError) -> str:
    """`field.path: what is wrong`, for each field, on one line."""
    return "; ".join(
        f"{'.'.join(str(part) for part in item['loc']) or 'data'}: {item['msg']}" for item in error.errors()
    )


def check_word(name: str, word: Any) -> None:
    """Refuse what a store could not keep: one that fails at it would fail its whole group of commits.

    Raises:
        InvalidInput: a word is no text, or too long; names it.
    """
    if word is None:
        return
    if not isinstance(word, str) or len(word) > _MAX_WORD:
        raise InvalidInput(f"{name} is text of at most {_MAX_WORD} characters, not {word!r:.60}")
    if not word.isascii():
        try:
            word.encode()
        except UnicodeEncodeError:
            raise InvalidInput(f"{name} holds a lone surrogate, which is not text: {word!r:.60}") from None
