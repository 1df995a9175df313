"""`prompt.txt` beside a manifest: rendered from a call's parameters into `params["prompt"]`.

It is rendered here and not in the host, because a template is code of the plugin: what it costs comes out of the
plugin's own limits.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

NAME = "prompt.txt"
#: The largest template, in bytes.
MAX_TEMPLATE = 256 * 1024


class PromptError(Exception):
    """The template cannot be read or rendered; the message names the place."""


class Prompt:
    """A compiled template.

    Raises:
        PromptError: it is too large, not UTF-8, or its syntax is wrong.
    """

    def __init__(self, path: Path) -> None:
        jinja2 = _library()
        environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
            undefined=_absent(jinja2), keep_trailing_newline=True, autoescape=False
        )
        self._errors = jinja2.exceptions.TemplateError
        try:
            raw = path.read_bytes()
            if len(raw) > MAX_TEMPLATE:
                raise PromptError(f"{NAME} is {len(raw):,} bytes; the limit is {MAX_TEMPLATE:,}")
            self._template = environment.from_string(raw.decode())
        except UnicodeDecodeError as error:
            raise PromptError(f"{NAME} is not UTF-8: {error.reason} at byte {error.start}") from None
        except jinja2.exceptions.TemplateSyntaxError as error:
            raise PromptError(f"{NAME}:{error.lineno}: {error.message}") from None

    @classmethod
    def of(cls, folder: Path) -> Prompt | None:
        """The template of a plugin's folder, if there is one."""
        path = folder / NAME
        return cls(path) if path.is_file() else None

    def filled(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """The parameters with `prompt` set to the rendered text.

        A `prompt` of the caller's own is the template's variable of that name.

        Raises:
            PromptError: it prints a value that the call does not give, or does what the sandbox forbids.
        """
        try:
            return {**params, "prompt": self._template.render(params)}
        except self._errors as error:
            raise PromptError(f"{NAME}: {error.message or error}") from None
        except (TypeError, ValueError, ArithmeticError, LookupError) as error:
            raise PromptError(f"{NAME}: {type(error).__name__}: {error}") from None


def _library() -> Any:
    # Here and not above: the worker's own code needs the standard library alone, and few plugins have a prompt.
    try:
        import jinja2
        import jinja2.sandbox
    except ImportError:
        raise PromptError(f"{NAME} needs the package jinja2, which the plugin's environment does not have") from None
    return jinja2


def _absent(jinja2: Any) -> Any:
    """The kind of an absent value: it may be tested and given a default, but not printed, iterated or calculated."""

    class Absent(jinja2.StrictUndefined):  # type: ignore[misc]  # its base comes from a package that may be missing
        __slots__ = ()

        def __bool__(self) -> bool:
            return False

    return Absent
