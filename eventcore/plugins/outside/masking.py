"""Takes secrets out of what strangers send back: a server that echoes headers must not tell a plugin what they hold."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Collection

MASK = b"***"
#: Shorter ones would riddle every text.
_SHORTEST = 4


def masked(data: bytes, secrets: Collection[str]) -> bytes:
    """The data with each secret replaced."""
    for secret in secrets:
        if len(secret) >= _SHORTEST:
            data = data.replace(secret.encode(), MASK)
    return data


async def masked_parts(parts: AsyncIterator[bytes], secrets: Collection[str]) -> AsyncGenerator[bytes, None]:
    """The same for data in parts: a secret may lie across two of them."""
    hold = max((len(secret.encode()) for secret in secrets), default=1) - 1
    rest = b""
    async for part in parts:
        rest = masked(rest + part, secrets)
        if len(rest) > hold:
            yield rest[: len(rest) - hold]
            rest = rest[len(rest) - hold :]
    yield rest
