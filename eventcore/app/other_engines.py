"""Makes what an engine knows of other workflow engines, from `[workflows.engines]`."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from eventcore.home.layout import Home
from eventcore.kernel.errors import HomeError, InvalidInput
from eventcore.kernel.masking import MaskingSecrets
from eventcore.kernel.ports import Clock, Randomness, Secrets
from eventcore.kernel.settings import ExternalEngineSettings, WorkflowSettings
from eventcore.workflows.external.n8n import N8n
from eventcore.workflows.external.port import Engines
from eventcore.workflows.external.resume import ResumeTokens

_KEY_SIZE = 32


def make_tokens(settings: WorkflowSettings, home: Home | None, clock: Clock) -> ResumeTokens:
    """What signs the addresses for answers. Without a home they are good as long as the process lives."""
    key = os.urandom(_KEY_SIZE) if home is None else _key(home.ensure_state() / "resume.key")
    return ResumeTokens(key, clock, base_url=settings.public_url or "", lifetime=settings.answer_within)


def make_engines(
    settings: WorkflowSettings, secrets: Secrets, clock: Clock, randomness: Randomness, tokens: ResumeTokens
) -> Engines:
    """The engines that settings name, in their order."""
    known = secrets if isinstance(secrets, MaskingSecrets) else MaskingSecrets(secrets)
    for value in [one for chosen in settings.engines.values() for one in chosen.headers.values()]:
        if not isinstance(value, str):
            known.get(value["secret"])  # from now on it is masked, in the answer to an earlier process's call too
    engines = [
        N8n(
            chosen.base_url,
            clock,
            randomness,
            name=name,
            headers=partial(_headers, name, chosen, known.get),
            slugs=frozenset(chosen.slugs) if chosen.slugs else None,
            wait=chosen.wait,
            timeout=chosen.timeout,
            attempts=chosen.attempts,
            mask=known.data,
        )
        for name, chosen in settings.engines.items()
    ]
    return Engines(engines, clock, tokens)


def _headers(engine: str, chosen: ExternalEngineSettings, secret: Callable[[str], str | None]) -> Mapping[str, str]:
    """The headers of one call: secrets are looked up each time, so that a new value counts at once."""
    found = {}
    for name, value in chosen.headers.items():
        text = value if isinstance(value, str) else secret(value["secret"])
        if text is None:
            raise InvalidInput(
                f"workflows.engines.{engine}.headers.{name} names a secret that is not set",
                hint="set EVENTCORE_SECRET_<NAME>, or put it into the file of [secrets]",
            )
        found[name] = text
    return found


def _key(path: Path) -> bytes:
    """The home's signing key, made at the first look."""
    try:
        try:
            file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            pass
        else:
            with open(file, "wb") as new:
                new.write(os.urandom(_KEY_SIZE))
        found = path.read_bytes()
    except OSError as error:
        raise HomeError(f"the key that signs resume addresses cannot be used: {error}") from error
    if len(found) != _KEY_SIZE:
        raise HomeError(f"{path} is damaged", hint="delete it; addresses that were handed out are void then")
    return found
