"""The address under which another engine answers a step: signed, for one attempt of one step, with an end.

That an answer counts once is not kept here: the step waits for it in its journal, and a second one finds it over.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from dataclasses import dataclass

from eventcore.kernel.errors import AccessDenied, InvalidInput
from eventcore.kernel.json import decode, encode
from eventcore.kernel.ports import Clock

_MAX_TOKEN = 2048
_BAD = "the resume token is not valid"


@dataclass(frozen=True, slots=True)
class Resume:
    """Which attempt of which step an answer is for."""

    run: str
    path: str
    attempt: int
    epoch: int = 0

    @property
    def ref(self) -> str:
        """What the step's wait is known by."""
        return answer_ref(self.run, self.path, self.attempt)


def answer_ref(run: str, path: str, attempt: int) -> str:
    """What the wait of one attempt of a step for its answer is known by."""
    return f"{run}/{path}#{attempt}"


class ResumeTokens:
    """Makes and checks tokens.

    Args:
        secret: at least 16 bytes; whoever has it can end waiting steps.
        base_url: of the server that receives the answers.
        lifetime: seconds until a token is of no use.

    Raises:
        InvalidInput: the secret is too short.
    """

    def __init__(self, secret: bytes, clock: Clock, *, base_url: str = "", lifetime: float = 7 * 86400.0) -> None:
        if len(secret) < 16:
            raise InvalidInput("the secret that signs resume addresses has at least 16 bytes")
        self._secret, self._clock, self._lifetime = secret, clock, lifetime
        self._base_url = base_url.rstrip("/")

    @property
    def lifetime(self) -> float:
        """Seconds until a token is of no use."""
        return self._lifetime

    def url(self, run: str, path: str, attempt: int, epoch: int = 0) -> str:
        """The whole address.

        Raises:
            InvalidInput: it is not known under which address this engine is reached.
        """
        if not self._base_url:
            raise InvalidInput(
                "an answer is to be called back, but nothing says where to", hint="set workflows.public_url"
            )
        return f"{self._base_url}/api/resume/{self.token(run, path, attempt, epoch)}"

    def token(self, run: str, path: str, attempt: int, epoch: int = 0) -> str:
        """The token alone: `payload.signature`, safe in addresses. `epoch`: of the step's idempotency key."""
        payload = _text(encode([run, path, attempt, epoch, int(self._clock.now() + self._lifetime)]))
        return f"{payload}.{self._sign(payload)}"

    def verify(self, token: str) -> Resume:
        """What a token is for.

        Raises:
            AccessDenied: it was not made with this secret, or its time is over.
        """
        payload, _, signature = token[:_MAX_TOKEN].partition(".")
        if not token.isascii() or not hmac.compare_digest(self._sign(payload), signature):
            raise AccessDenied(_BAD)
        run, path, attempt, epoch, until = decode(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        if self._clock.now() > until:
            raise AccessDenied("the time of the resume token is over")
        return Resume(run, path, attempt, epoch)

    def _sign(self, payload: str) -> str:
        return _text(hmac.new(self._secret, payload.encode(), hashlib.sha256).digest())


def _text(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")
