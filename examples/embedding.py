"""EventCore inside a program: an event, a hook, a plugin, a workflow, and what the history says of it.

Run it: `python examples/embedding.py`. Everything is in memory; `EventCore("path/to/home")` would keep it.
"""

from __future__ import annotations

import anyio

from eventcore import EventCore

TRIAGE = """
slug: triage_message
steps:
  - {id: classify, plugin: classify_text, with: {text: "{{ inputs.text }}"}}
  - {id: note, emit: message_triaged, with: {label: "{{ steps.classify.output.label }}"}}
outputs: {label: "{{ steps.classify.output.label }}"}
"""


async def main() -> None:
    async with EventCore() as core:
        core.bus.subscribe("order_*", lambda event: print("handled", event.type, event.data))
        core.signals.workflow_started.connect(lambda tenant, event: print("tapped", event.type))
        receipt = await core.bus.emit("order_created", {"id": 1}, idempotency_key="order-1")

        @core.intent("classify_text")
        async def classify(params: dict[str, str]) -> dict[str, str]:
            return {"label": "question" if params["text"].endswith("?") else "statement"}

        outcome = await core.hooks.call("on_message", {"text": "Are you there?", "user": "ada"})
        greeting = await core.plugins.run("hello_world", {"name": "Ada"}, roles=["user"])
        core.workflows.define(TRIAGE)
        run = await core.workflows.start("triage_message", {"text": outcome.value["text"]}, idempotency_key="m-17")
        print(receipt.position, greeting, await run.result(timeout=10))
        async for event in core.history.query(type="step_*", run=run.id):
            print(event.position, event.type, event.subject)


if __name__ == "__main__":
    anyio.run(main)
