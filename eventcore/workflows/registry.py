"""The definitions that an engine knows by slug, and which events start them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from eventcore.kernel.errors import UnknownWorkflow
from eventcore.kernel.names import did_you_mean, is_literal, pattern
from eventcore.workflows.definition import Workflow, parse_workflow, read_workflow
from eventcore.workflows.expressions import Expressions
from eventcore.workflows.plan import Payload, Plan, TriggerPlan, compile_plan

_MAX_REMEMBERED = 4096
_PLACES = ("the home's workflows/", "the enabled ones of the catalogue and of plugins", "those defined in code")


class Elsewhere(Protocol):
    """Other engines that serve workflows."""

    @property
    def searched(self) -> Sequence[str]:
        """The places where they look, for messages."""

    def serves(self, slug: str) -> bool:
        """Whether any of them serves a slug."""


class Registry:
    """Plans by slug, with their triggers indexed by event type; old plans by hash, for runs pinned to them.

    Args:
        payload: see `compile_plan`.
    """

    def __init__(self, payload: Payload = lambda name, data: data) -> None:
        self._expressions, self._payload = Expressions(), payload
        #: Called after definitions came or went.
        self.watchers: list[Callable[[], None]] = []
        #: Asked for a slug that is not defined here.
        self.elsewhere: Elsewhere | None = None
        self._plans: dict[str, Plan] = {}
        self._handed_over: dict[str, Plan] = {}
        self._by_hash: dict[str, Plan] = {}
        self._origins: dict[str, str] = {}
        self._literal: dict[str, list[tuple[Plan, TriggerPlan]]] = {}
        self._patterns: list[tuple[Plan, TriggerPlan]] = []
        # Asked once for every event that is committed, and there are few types.
        self._matching: dict[str, tuple[tuple[Plan, TriggerPlan], ...]] = {}

    def compile(self, source: str | Mapping[str, Any] | Workflow | Path, file: str = "<definition>") -> Plan:
        """A plan that is not registered: what `validate` needs.

        Raises:
            InvalidDefinition: with file, line and key of each mistake.
        """
        if isinstance(source, Path):
            workflow, place = read_workflow(source)
        else:
            workflow, place = parse_workflow(source, file)
        return compile_plan(workflow, self._expressions, place, self._payload)

    def define(self, source: str | Mapping[str, Any] | Workflow | Path, file: str = "<definition>") -> Plan:
        """Register a definition, or replace the one of its slug. Runs in flight keep the one they started with.

        Raises:
            InvalidDefinition: with file, line and key of each mistake.
        """
        plan = self.compile(source, file)
        self._plans[plan.slug] = self._by_hash[plan.hash] = plan
        self._origins[plan.slug] = str(source) if isinstance(source, Path) else file
        self._index()
        return plan

    def remove(self, slug: str) -> None:
        """Forget a definition; runs pinned to it go on."""
        self._plans.pop(slug, None)
        self._origins.pop(slug, None)
        self._index()

    def origin(self, slug: str) -> str:
        """The file (or `<definition>`) that a slug came from."""
        return self._origins[slug]

    def get(self, slug: str) -> Plan:
        """The plan of a slug; of one that another engine serves, a plan that hands it over.

        Raises:
            UnknownWorkflow: there is none; names the nearest slug and the places searched.
        """
        plan = self._plans.get(slug)
        if plan is None and self.elsewhere is not None and self.elsewhere.serves(slug):
            return self._hand_over(slug)
        if plan is None:
            places = [*_PLACES, *(self.elsewhere.searched if self.elsewhere is not None else ())]
            raise UnknownWorkflow(
                f"there is no workflow {slug!r}{did_you_mean(slug, self._plans)}", hint=f"searched: {', '.join(places)}"
            )
        return plan

    def _hand_over(self, slug: str) -> Plan:
        """One step that another engine does: so what is started there is a run here, which survives a crash."""
        plan = self._handed_over.get(slug)
        if plan is None:
            step = {"id": "call", "workflow": slug, "with": "{{ inputs }}"}
            plan = self.compile({"slug": slug, "steps": [step], "outputs": "{{ steps.call.output }}"}, "<elsewhere>")
            if len(self._handed_over) < _MAX_REMEMBERED:
                self._handed_over[slug] = self._by_hash[plan.hash] = plan
        return plan

    def knows(self, slug: str) -> bool:
        """Whether the slug is defined here, or served elsewhere."""
        return slug in self._plans or (self.elsewhere is not None and self.elsewhere.serves(slug))

    def find(self, slug: str) -> Plan | None:
        return self._plans.get(slug)

    def pinned(self, digest: str) -> Plan | None:
        """The plan with this hash, if it is known."""
        return self._by_hash.get(digest)

    def pin(self, raw: bytes, slug: str) -> Plan:
        """Compile a stored definition for the runs that are pinned to it."""
        plan = self.compile(raw.decode(), f"<stored definition of {slug}>")
        self._by_hash[plan.hash] = plan
        return plan

    def __iter__(self) -> Iterator[Plan]:
        return iter(sorted(self._plans.values(), key=lambda plan: plan.slug))

    def triggers(self, event_type: str) -> tuple[tuple[Plan, TriggerPlan], ...]:
        """The triggers that listen to this type, in order of slug and place."""
        found = self._matching.get(event_type)
        if found is None:
            found = (
                *self._literal.get(event_type, ()),
                *(pair for pair in self._patterns if pattern(pair[1].pattern).fullmatch(event_type)),
            )
            if len(self._matching) < _MAX_REMEMBERED:
                self._matching[event_type] = found
        return found

    def _index(self) -> None:
        for changed in self.watchers:
            changed()
        self._literal, self._patterns, self._matching = {}, [], {}
        for plan in self:
            for trigger in plan.triggers:
                if not trigger.pattern:
                    continue
                if is_literal(trigger.pattern):
                    self._literal.setdefault(trigger.pattern, []).append((plan, trigger))
                else:
                    self._patterns.append((plan, trigger))
