"""Payloads and replies, checked against their models."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ValidationError

from eventcore.bus.types import explain
from eventcore.hooks.specs import HookSpec, Payload, checked
from eventcore.kernel.errors import InvalidPayload
from eventcore.kernel.json import decode, encode


def raw_payload(spec: HookSpec, data: Any) -> bytes:
    """`data` as the hook's model has it, in JSON.

    Raises:
        InvalidPayload: it is not JSON, or does not fit; names the field.
    """
    raw = encode(data, what=f"the payload of {spec.name}")
    if spec.payload is Payload and raw[:1] == b"{":  # any object: there is nothing to check or fill in
        return raw
    return fitting(spec.payload, spec.name, data)


def fitting(model: type[BaseModel], what: str, data: Any) -> bytes:
    """`data`, which is JSON, as `model` has it; else InvalidPayload, which names the field."""
    try:
        return checked(model, data)
    except ValidationError as error:
        raise InvalidPayload(f"{what}: {explain(error)}") from None


def copied(reply: Any) -> Any:
    """The reply as it was, for when a wrapper spoils it; what the caller's own work made need not be JSON."""
    try:
        return decode(encode(reply))
    except InvalidPayload:
        return reply


def same_words(old: dict[str, Any], raw: bytes) -> bytes:
    """A filter that masks the text of a command means its arguments too: they are the same words."""
    if "args" not in old or "command" not in old:
        return raw
    new = decode(raw)
    if new["text"] == old["text"] or new["args"] != old["args"]:
        return raw
    new["args"] = new["text"].split()[1:]
    return encode(new)
