"""Answers the intent `classify_text`: what kind of message a text is, and what it is about. Rules, no model.

Each rule gives its label points where it is found. The label with the most points wins; the share of the points that
it has is the confidence. The words are English; other languages are told by their question marks.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

LABELS = ("question", "problem", "request", "greeting", "statement")

_OPENERS = (
    "who|what|when|where|why|which|whose|whom|how|is|are|am|was|were|do|does|did|can|could|will|would|should|has|have"
)
_TROUBLE = (
    r"errors?|fail(?:s|ed|ing|ures?)?|broken?|breaks|crash(?:es|ed|ing)?|bugs?|wrong|problems?|issues?|stuck|"
    r"does(?:n[o']?t| not) work|do(?:n[o']?t| not) work|can(?:no|')t|not working|exception|timed? ?out|down"
)
_RULES: tuple[tuple[str, float, re.Pattern[str]], ...] = tuple(
    (label, points, re.compile(pattern, re.IGNORECASE))
    for label, points, pattern in (
        ("question", 3, r"[?\uff1f\u061f]\s*['\")\]]*$"),
        ("question", 1, r"[?\uff1f\u061f]"),
        ("question", 2, rf"^\W*(?:{_OPENERS})\b"),
        ("problem", 2.5, rf"\b(?:{_TROUBLE})\b"),
        ("problem", 1, r"\b(?:urgent|asap|help)\b|!{2,}"),
        ("request", 2.5, r"^\W*(?:please|kindly)\b|\bplease\b"),
        (
            "request",
            2,
            r"^\W*(?:add|build|call|change|create|delete|find|fix|make|open|remind|remove|schedule|send|show)\b",
        ),
        ("request", 1.5, r"\b(?:i|we) (?:need|want|would like)\b|\b(?:could|would|can) you\b"),
        (
            "greeting",
            3,
            r"^\W*(?:hi|hello|hey|good (?:morning|afternoon|evening)|greetings|welcome)\b[^.?!]{0,24}[.?!]*$",
        ),
        ("greeting", 1, r"^\W*(?:hi|hello|hey|thanks|thank you|bye|goodbye)\b"),
    )
)
_CLOCK = re.compile(
    r"\b(?:what(?:'s| is)? the (?:time|date)|what time|what day|current (?:time|date))\b", re.IGNORECASE
)
_ZONE = re.compile(r"\b([A-Z][A-Za-z_]+/[A-Z][A-Za-z_]+(?:/[A-Z][A-Za-z_]+)?|UTC)\b")
_SUM = re.compile(r"[-+(]?\s*\d[\d\s.+\-*/%()]*[+\-*/%][\d\s.+\-*/%()]*\d\s*\)*")


def run(params: Mapping[str, Any]) -> dict[str, Any]:
    """Classify a text.

    Args:
        params: `text`, 1 to 65,536 characters.

    Returns:
        `success`, `label` (one of `LABELS`), `confidence` (0 to 1), `scores` (points by label), `topic` (`time`,
        `arithmetic` or `other`), `detail` (the zone, or the sum to work out); or `success: false`, `error`, `message`.
    """
    text = params.get("text")
    if not isinstance(text, str) or not text.strip():
        return {"success": False, "error": "invalid_text", "message": "text must be text that is not blank"}
    scores = dict.fromkeys(LABELS, 0.0) | {"statement": 0.5}
    for label, points, pattern in _RULES:
        if pattern.search(text.strip()):
            scores[label] += points
    label = max(LABELS, key=scores.__getitem__)  # of equals the first, in the order of LABELS
    topic, detail = _topic(text)
    confidence = round(scores[label] / sum(scores.values()), 3)
    return {
        "success": True,
        "label": label,
        "confidence": confidence,
        "scores": scores,
        "topic": topic,
        "detail": detail,
    }


def _topic(text: str) -> tuple[str, str | None]:
    for name, find in _TOPICS.items():
        if (detail := find(text)) is not None:
            return name, detail
    return "other", None


def _time(text: str) -> str | None:
    if not _CLOCK.search(text):
        return None
    zone = _ZONE.search(text)
    return zone[1] if zone else "UTC"


def _arithmetic(text: str) -> str | None:
    found = _SUM.search(text)
    return found[0].strip() if found else None


_TOPICS: dict[str, Callable[[str], str | None]] = {"time": _time, "arithmetic": _arithmetic}
