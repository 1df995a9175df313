"""Collapses runs of white space in chat messages, so that later handlers see one clean line."""

from __future__ import annotations

from typing import Any

from eventcore.sdk import Replace, filter  # noqa: A004 - the stage's name


@filter
def on_message(message: dict[str, Any]) -> Replace | None:
    tidy = " ".join(message["text"].split())
    return None if tidy == message["text"] else Replace({**message, "text": tidy})
