"""What a caller is shown of a failure: everything if he develops or administers, else a short message and a reference.

The failure itself is recorded whole, but for secrets; the reference is the id of its event.
"""

from __future__ import annotations

import re

from eventcore.kernel.context import CallContext
from eventcore.kernel.errors import PluginFailed
from eventcore.kernel.masking import MaskingSecrets

#: Who may see tracebacks and paths.
INSIDERS = frozenset({"developer", "admin", "operator"})
_MOST = 200
#: Paths of files; those of the API, behind a method, tell nothing of the machine.
_PATH = re.compile(r"(?<![\w.])(?<!GET )(?<!POST )(?:/[^\s/:'\"<>|]+){2,}/?")


def without_secrets(error: PluginFailed, secrets: MaskingSecrets) -> PluginFailed:
    """The same failure with secrets masked, in place."""
    error.message = secrets.text(error.message)
    error.args = (secrets.text(str(error)),)
    error.trace = None if error.trace is None else secrets.text(error.trace)
    error.output = {name: secrets.text(text) for name, text in error.output.items()}
    return error


def for_caller(error: PluginFailed, reference: str, context: CallContext) -> PluginFailed:
    """What the caller gets of a failure that was recorded.

    Args:
        reference: the id of the event; in `details["reference"]`.
    """
    error.details["reference"] = reference
    if context.roles & INSIDERS:
        return error
    shown = type(error)(f"{_short(error.message)} (reference {reference})", kind=error.kind)
    kept = ("reference", "transient", "limit")
    shown.details.update({key: error.details[key] for key in kept if key in error.details})
    return shown


def _short(message: str) -> str:
    """The first line, without paths, at most 200 characters."""
    first = message.strip().partition("\n")[0]
    text = _PATH.sub(lambda found: found[0].rstrip("/").rpartition("/")[2], first)
    return text if len(text) <= _MOST else f"{text[: _MOST - 1]}…"
