"""Settings of what the host keeps for plugins: databases and memory."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from eventcore.kernel.section import Section, Text


def _web_address(url: str) -> str:
    if not url.startswith(("http://", "https://")):
        raise ValueError("should be an http or https address")
    return url


DatabaseName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,63}$")]


class DatabaseSettings(Section):
    """Databases that plugins reach with `ctx.db`."""

    shared: dict[DatabaseName, Text] = Field(
        default_factory=dict,
        description=(
            "SQLite files that plugins may use whose manifest names them. Paths by name, relative to the home; the "
            "files are never made."
        ),
        examples=[{"sales": "data/sales.db"}],
    )
    timeout: float = Field(
        default=5.0, gt=0, le=3600, description="Longest that one statement may take. Seconds.", examples=[1]
    )
    size_mb: float = Field(
        default=256.0, ge=1, le=1_048_576, description="Largest size of one database. Mebibytes.", examples=[16]
    )
    most: int = Field(
        default=16,
        ge=0,
        le=10_000,
        description="Databases of its own that a plugin may have in a tenant. Count.",
        examples=[4],
    )


class MemorySettings(Section):
    """What is remembered of calls, and how it is searched."""

    store_results: bool = Field(
        default=True,
        description="Whether results of `run_plugin` and `eventcore run` are remembered. Boolean.",
        examples=[False],
    )
    most: int = Field(
        default=100_000,
        ge=1,
        le=100_000_000,
        description="Memories of one tenant; beyond that the oldest are forgotten.",
        examples=[1000],
    )
    embeddings: Annotated[Text, AfterValidator(_web_address)] | None = Field(
        default=None,
        description=(
            "Address of an OpenAI-compatible service, to which `/embeddings` is added; with it memories are found by "
            "likeness as well. Without it, by words only."
        ),
        examples=["http://127.0.0.1:11434/v1"],
    )
    model: Text = Field(
        default="text-embedding-3-small", description="The model to ask for. Text.", examples=["nomic-embed-text"]
    )
    api_key: Text | None = Field(
        default=None,
        description="Name of the secret that holds the service's key; without it, none.",
        examples=["OPENAI"],
    )
    compare: int = Field(
        default=5000,
        ge=1,
        le=10_000,
        description="How many of the newest memories a search by likeness compares.",
        examples=[1000],
    )
    timeout: float = Field(
        default=10.0,
        gt=0,
        le=300,
        description="Longest that one request to the service may take. Seconds.",
        examples=[30],
    )
