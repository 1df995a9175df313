"""`[workflows]` of `eventcore.toml`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from eventcore.kernel.names import workflow_slug
from eventcore.kernel.section import Section, Text, as_value_error, unique


def _workflow_slug(name: str) -> str:
    return as_value_error(workflow_slug, name)


WorkflowSlug = Annotated[str, AfterValidator(_workflow_slug)]
WorkflowSlugs = Annotated[tuple[WorkflowSlug, ...], Field(strict=False), AfterValidator(unique)]
EngineName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,63}$")]
HeaderName = Annotated[str, Field(pattern=r"^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}$")]


class ExternalEngineSettings(Section):
    """`[workflows.engines.<name>]`: an engine that serves workflows which have no definition here."""

    kind: Literal["n8n"] = Field(default="n8n", description="What it speaks: `n8n`. Text.")
    base_url: Annotated[Text, Field(pattern=r"^https?://[^\s]+$")] = Field(
        description="Its address; calls go to {base_url}/webhook/{slug}. URL.", examples=["https://n8n.example.com"]
    )
    headers: dict[HeaderName, str | dict[Literal["secret"], Text]] = Field(
        default_factory=dict,
        description='Headers of every call; a value {secret = "NAME"} is looked up among the secrets. Texts by name.',
    )
    slugs: WorkflowSlugs = Field(default=(), description="The workflows that it serves; empty for any. List of slugs.")
    wait: Literal["none", "response", "callback"] = Field(
        default="response", description="When a step is over: once accepted, with the response, or once it calls back."
    )
    timeout: float = Field(default=30.0, gt=0, le=3600, description="Time limit of one attempt. Seconds.")
    attempts: int = Field(default=4, ge=1, le=20, description="Tries of one call, where trying again is safe.")


class WorkflowSettings(Section):
    """Which workflows can be started, and which other engines serve some."""

    auto: bool = Field(
        default=True,
        description="Whether every workflow of the home is active; if false, only those in `enabled`. Boolean.",
        examples=[False],
    )
    enabled: WorkflowSlugs = Field(
        default=(),
        description="Workflows to activate besides: of the catalogue, or all if `auto` is false. List of slugs.",
    )
    disabled: WorkflowSlugs = Field(
        default=(), description="Workflows that never start, whatever else says so. List of slugs."
    )
    engines: dict[EngineName, ExternalEngineSettings] = Field(
        default_factory=dict,
        description=(
            "Engines that serve workflows which have no definition here, asked in order. Tables by name, with `kind`, "
            "`base_url`, `headers`, `slugs`, `wait`, `timeout` and `attempts`."
        ),
        examples=[{"n8n": {"base_url": "https://n8n.example.com", "wait": "callback"}}],
    )
    public_url: Annotated[Text, Field(pattern=r"^https?://[^\s]+$")] | None = Field(
        default=None,
        description="Address under which others reach this engine, for `resume_url`. URL; without it, no callbacks.",
        examples=["https://eventcore.example.com"],
    )
    answer_within: float = Field(
        default=604_800.0,
        ge=1,
        le=31_536_000,
        description="How long a `resume_url` is good for, and a step waits for its answer (604800 is 7 days). Seconds.",
        examples=[86_400],
    )
    keep_runs: float = Field(
        default=7_776_000.0,
        ge=0,
        le=3_153_600_000,
        description="How long a finished run is kept with its journal (7776000 is 90 days); 0 for ever. Seconds.",
        examples=[604_800],
    )
