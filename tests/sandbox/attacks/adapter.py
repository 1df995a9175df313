"""Calls what a corpus for other hosts calls its entry point, as it wants to be called."""

from __future__ import annotations

from pathlib import Path

from tests.sandbox.attacks.catalogue import Attack

#: The file that stands beside the attack's own, and is the module of the plugin in its place.
NAME = "eventcore_adapter.py"
_CODE = '''
import importlib, inspect

MODULE, ENTRY = {module!r}, {entry!r}


def _entry():
    found = importlib.import_module("." + MODULE, __package__) if MODULE else importlib.import_module(__package__)
    for name in ENTRY.split("."):
        found = getattr(found, name)
        if inspect.isclass(found):
            found = found({{}}) if _needed(found) else found()
    return found


def _needed(function):
    try:
        given = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return []
    return [one for one in given if one.default is one.empty and one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD)]


def _called(planted):
    """With what is planted as the first argument, and as keywords where there is no first one; the others are empty."""
    function = _entry()
    given = inspect.signature(function).parameters.values()
    places = [one for one in given if one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD)]
    alone = [one.name for one in _needed(function) if one.kind == one.KEYWORD_ONLY]
    more = {{name: planted.get(name, {{}}) for name in alone}}
    if places:
        return function(planted, *[{{}} for one in places[1:] if one.default is one.empty], **more)
    if any(one.kind == one.VAR_POSITIONAL for one in given):
        return function(planted, **more)
    if any(one.kind == one.VAR_KEYWORD for one in given):
        return function(**planted)
    return function(**more)


if not ENTRY:
    _entry = lambda: (lambda: None)
    importlib.import_module("." + MODULE, __package__) if MODULE else None
'''
_PLAIN = "\n\ndef run(planted):\n    return _called(planted)\n"
_ASYNCHRONOUS = "\n\nasync def run(planted):\n    return await _called(planted)\n"


def adapt(attack: Attack, folder: Path) -> str:
    """Put the adapter beside the attack's file in a copy of its corpus; its path there, relative to `folder`."""
    file = Path(attack.file)
    module = "" if file.stem == "__init__" else file.stem
    entry = attack.function
    text = _CODE.format(module=module, entry=entry) + (_ASYNCHRONOUS if attack.asynchronous else _PLAIN)
    place = file.with_name(NAME)
    (folder / place).write_text(text, encoding="utf-8")
    return place.as_posix()
