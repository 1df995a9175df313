"""A client of an OpenAI-compatible embeddings service: texts in, vectors out.

`POST {url}/embeddings` with `{"model": ..., "input": [...]}` is answered by
`{"data": [{"index": 0, "embedding": [...]}, ...]}`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import httpx

from eventcore.kernel.errors import EventCoreError, InvalidInput
from eventcore.kernel.json import decode
from eventcore.kernel.ports import Metrics
from eventcore.kernel.vectors import packed

#: Texts in one request, and characters of each; services refuse what is longer.
MAX_TEXTS, MAX_TEXT = 32, 8000
_MAX_ANSWER = 32 * 1024 * 1024


class EmbeddingsFailed(EventCoreError):
    """The embeddings service did not answer as it should."""

    code = "embeddings_failed"


class Embeddings:
    """One service and model.

    Args:
        url: what `/embeddings` is added to.
        key: sent as a bearer token; never part of an error.
        timeout: seconds for one request.
    """

    def __init__(self, url: str, model: str, key: str | None, timeout: float, metrics: Metrics) -> None:
        self.model, self._url, self._timeout, self._metrics = model, f"{url.rstrip('/')}/embeddings", timeout, metrics
        headers = {"authorization": f"Bearer {key}"} if key else {}
        # Where it goes is the operator's word, so no proxy of the environment has a say.
        self._client = httpx.AsyncClient(headers=headers, timeout=timeout, trust_env=False, follow_redirects=False)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def vectors(self, texts: Sequence[str]) -> list[bytes | None]:
        """A vector for each text, as memories store it; None where the service gave one that is none.

        Raises:
            EmbeddingsFailed: it cannot be reached, refused, or answered something else.
        """
        try:
            found = await self._ask([text[:MAX_TEXT] or " " for text in texts])
        except (EmbeddingsFailed, httpx.HTTPError) as error:
            self._metrics.count("embedding_requests_total", outcome="failed")
            if isinstance(error, EmbeddingsFailed):
                raise
            raise EmbeddingsFailed(f"{self._url}: {type(error).__name__}") from None
        self._metrics.count("embedding_requests_total", outcome="ok")
        return found

    async def _ask(self, texts: list[str]) -> list[bytes | None]:
        raw = bytearray()
        async with self._client.stream("POST", self._url, json={"model": self.model, "input": texts}) as answer:
            if answer.status_code != 200:
                raise EmbeddingsFailed(f"{self._url} answered {answer.status_code}")
            async for part in answer.aiter_bytes():
                raw += part
                if len(raw) > _MAX_ANSWER:
                    raise EmbeddingsFailed(f"{self._url} answered more than {_MAX_ANSWER >> 20} MiB")
        try:
            return _of_answer(decode(bytes(raw)), len(texts))
        except (InvalidInput, KeyError, TypeError, IndexError) as error:
            raise EmbeddingsFailed(f"{self._url} answered something else: {error!s:.200}") from None


def _of_answer(body: Any, count: int) -> list[bytes | None]:
    found: list[bytes | None] = [None] * count
    for place, one in enumerate(body["data"]):
        index = one.get("index", place)
        if not isinstance(index, int) or not 0 <= index < count:
            raise IndexError(f"there is no text {index!r:.20}")
        try:
            found[index] = packed(one["embedding"])
        except (InvalidInput, TypeError, ValueError, OverflowError):
            found[index] = None
    return found
