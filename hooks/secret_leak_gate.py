"""Refuses chat messages that seem to hold a credential, before anything else sees or stores them.

Looks for shapes that are hardly ever anything else: private key blocks, and access keys with their issuer's fixed
prefix. It is a net for slips, not a guard against somebody who means to get one through.
"""

from __future__ import annotations

import re
from typing import Any

from eventcore.sdk import Deny, gate

_SHAPES = {
    "a private key": re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----"),
    "an AWS access key": re.compile(r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"),
    "a GitHub token": re.compile(r"\b(?:gh[pousr]_[A-Za-z0-9]{36}|github_pat_[A-Za-z0-9_]{60,})\b"),
    "a Slack token": re.compile(r"\bxox[abprs]-[A-Za-z0-9-]{10,}\b"),
}


@gate(priority=100)
def on_message(message: dict[str, Any]) -> Deny | None:
    for what, shape in _SHAPES.items():
        if shape.search(message["text"]):
            return Deny(f"the message seems to hold {what}")
    return None
