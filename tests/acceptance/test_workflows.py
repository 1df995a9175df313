"""H6: what starts a workflow."""

from __future__ import annotations

import pytest

from tests.acceptance.conftest import HomeFolder

BIG_ORDERS = """
slug: big_orders
triggers:
  - event: order_created
    if: "{{ event.data.amount > 100 }}"
    with: {amount: "{{ event.data.amount }}"}
steps:
  - {id: note, emit: big_order_noted, with: {amount: "{{ inputs.amount }}"}}
"""


@pytest.mark.req("H6")
def test_an_event_starts_a_run_in_its_own_commit(home: HomeFolder) -> None:
    home.write("workflows/big_orders.yaml", BIG_ORDERS)
    home.json("emit", "order_created", '{"amount": 5}')
    assert home.json("runs", "list") == []
    order = home.json("emit", "order_created", '{"amount": 500}')
    [run] = home.json("runs", "list")
    assert run["slug"] == "big_orders"
    assert run["causation_id"] == order["id"]
    [started] = home.json("events", "list", "--type", "workflow_started")
    assert started["position"] == order["position"] + 1, "nothing can stand between two entries of one commit"

    chat = "slug: chatted\ntriggers: [{event: on_message}]\nsteps: [{id: s, emit: chat_noted}]"
    command = "slug: commanded\ntriggers: [{event: on_command}]\nsteps: [{id: s, emit: command_noted}]"
    home.write("workflows/chatted.yaml", chat)
    home.write("workflows/commanded.yaml", command)
    home.plugin(
        "commander",
        'def on_command(command, args):\n    return {"text": "done"}',
        commands=[{"name": "/go", "description": "Go", "usage": "/go"}],
    )
    home.run("plugins", "enable", "commander")
    done = home.run("chat", stdin="hello\n/go\n")
    assert done.returncode == 0, done.stderr
    assert sorted(run["slug"] for run in home.json("runs", "list")) == ["big_orders", "chatted", "commanded"]
