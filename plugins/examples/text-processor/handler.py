"""Answers the intent `text_processor`: counts, case, search and replace, differences, statistics."""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Callable
from typing import Any

#: The longest text, in characters; comparing takes quadratic time, so its texts are limited by lines as well.
MAX_TEXT = 200_000
MAX_DIFF_LINES = 2_000
MAX_REPLACED = 1_000_000

_WORD = re.compile(r"\w+(?:['\u2019-]\w+)*")
_SENTENCE_END = re.compile(r"[.!?]+(?=\s|$)")
_CASES: dict[str, Callable[[str], str]] = {
    "upper": str.upper,
    "lower": str.lower,
    "title": str.title,
    "swap": str.swapcase,
    "sentence": lambda text: text[:1].upper() + text[1:].lower(),
    "snake": lambda text: "_".join(_words(text)).lower(),
    "kebab": lambda text: "-".join(_words(text)).lower(),
}


class Refused(ValueError):
    """The parameters do not make sense; the first argument is the error's code."""


async def run(params: dict[str, Any]) -> dict[str, Any]:
    """Do `params["op"]` to `params["text"]`.

    Args:
        params: `op`: `count`, `case` (`to`), `replace` (`search`, `replacement`, `ignore_case`, `whole_words`; plain
            text, never a pattern), `diff` (`other`), `stats`.

    Returns:
        `success`, `op` and what the operation found; or `success: false`, `error`, `message`.
    """
    name = params.get("op")
    operation = _OPERATIONS.get(name) if isinstance(name, str) else None
    if operation is None:
        return _failure("unknown_op", f"op must be one of {', '.join(_OPERATIONS)}")
    try:
        return {"success": True, "op": name, **operation(_text(params, "text"), params)}
    except Refused as why:
        return _failure(*why.args)


def _count(text: str, _: dict[str, Any]) -> dict[str, Any]:
    return {
        "words": len(_words(text)),
        "characters": len(text),
        "characters_without_spaces": sum(not character.isspace() for character in text),
        "lines": len(text.splitlines()),
    }


def _case(text: str, params: dict[str, Any]) -> dict[str, Any]:
    change = _CASES.get(str(params.get("to")))
    if change is None:
        raise Refused("unknown_case", f"to must be one of {', '.join(_CASES)}")
    return {"text": change(text)}


def _replace(text: str, params: dict[str, Any]) -> dict[str, Any]:
    search, replacement = _text(params, "search"), _text(params, "replacement")
    if not search:
        raise Refused("empty_search", "search must not be empty")
    # The search text is escaped: nobody can send a pattern that takes exponential time.
    source = re.escape(search)
    if params.get("whole_words"):
        source = rf"(?<!\w){source}(?!\w)"
    pattern = re.compile(source, re.IGNORECASE if params.get("ignore_case") else 0)
    found = sum(1 for _ in pattern.finditer(text))
    if len(text) + found * (len(replacement) - len(search)) > MAX_REPLACED:
        raise Refused("too_long", f"the result would be longer than {MAX_REPLACED:,} characters")
    return {"text": pattern.sub(lambda _: replacement, text), "replaced": found}


def _diff(text: str, params: dict[str, Any]) -> dict[str, Any]:
    before, after = text.splitlines(), _text(params, "other").splitlines()
    if max(len(before), len(after)) > MAX_DIFF_LINES:
        raise Refused("too_long", f"texts to compare have at most {MAX_DIFF_LINES:,} lines")
    lines = list(difflib.unified_diff(before, after, "text", "other", lineterm=""))
    return {
        "equal": text == params["other"],
        "diff": "\n".join(lines),
        "added": sum(line.startswith("+") for line in lines[2:]),
        "removed": sum(line.startswith("-") for line in lines[2:]),
    }


def _stats(text: str, params: dict[str, Any]) -> dict[str, Any]:
    words = [word.lower() for word in _words(text)]
    sentences = max(len(_SENTENCE_END.findall(text)), 1 if words else 0)
    return {
        **_count(text, params),
        "sentences": sentences,
        "unique_words": len(set(words)),
        "average_word_length": round(sum(map(len, words)) / len(words), 2) if words else 0.0,
        "words_per_sentence": round(len(words) / sentences, 2) if sentences else 0.0,
        "most_common": [{"word": word, "count": count} for word, count in Counter(words).most_common(10)],
    }


_OPERATIONS: dict[str, Callable[[str, dict[str, Any]], dict[str, Any]]] = {
    "count": _count,
    "case": _case,
    "replace": _replace,
    "diff": _diff,
    "stats": _stats,
}


def _words(text: str) -> list[str]:
    return _WORD.findall(text)


def _text(params: dict[str, Any], key: str) -> str:
    value = params.get(key)
    if not isinstance(value, str):
        raise Refused(f"missing_{key}", f"{key} must be text")
    if len(value) > MAX_TEXT:
        raise Refused("too_long", f"{key} has at most {MAX_TEXT:,} characters")
    return value


def _failure(code: str, message: str) -> dict[str, Any]:
    return {"success": False, "error": code, "message": message}
