"""What is known about event types: payload models and whether they are recorded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ValidationError

from eventcore.kernel.errors import InvalidInput, InvalidName, InvalidPayload
from eventcore.kernel.names import CORE_EVENTS, event_type, is_hook_event

#: The longest subject, key, source, actor or idempotency key, in characters.
_MAX_WORD = 1024


@dataclass(frozen=True, slots=True)
class EventType:
    """A declared type.

    Attributes:
        model: pydantic model that the payload must satisfy, or None for any JSON.
        transient: handed to subscribers without being recorded; nothing of it survives a crash.
    """

    name: str
    model: type[BaseModel] | None = None
    transient: bool = False


class EventTypes:
    """The declared event types of one engine. Undeclared types are recorded and take any JSON."""

    def __init__(self) -> None:
        self._types: dict[str, EventType] = {}

    def declare(self, name: str, model: type[BaseModel] | None = None, *, transient: bool = False) -> EventType:
        """Declare a type, or declare it again.

        Raises:
            InvalidName: it is no event type, or one that only the host emits.
        """
        name = event_type(name)
        if name in CORE_EVENTS or is_hook_event(name):
            raise InvalidName(f"{name} belongs to the host and cannot be declared")
        self._types[name] = declared = EventType(name, model, transient)
        return declared

    def get(self, name: str) -> EventType | None:
        return self._types.get(name)

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


def explain(error: ValidationError) -> str:
    """`field.path: what is wrong`, for each field, on one line."""
    return "; ".join(
        f"{'.'.join(str(part) for part in item['loc']) or 'data'}: {item['msg']}" for item in error.errors()
    )


def check_words(**words: Any) -> None:
    """Refuse what a store could not keep: one that fails at it would fail its whole group of commits.

    Raises:
        InvalidInput: a word is no text, or too long; names it.
    """
    for name, word in words.items():
        if word is None:
            continue
        if not isinstance(word, str) or len(word) > _MAX_WORD:
            raise InvalidInput(f"{name} is text of at most {_MAX_WORD} characters, not {word!r:.60}")
        if not word.isascii():
            try:
                word.encode()
            except UnicodeEncodeError:
                raise InvalidInput(f"{name} holds a lone surrogate, which is not text: {word!r:.60}") from None
