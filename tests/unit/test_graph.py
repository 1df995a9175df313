"""Graphs of definitions and runs: their edges, and that each form draws all of them."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

from hypothesis import given, settings
from hypothesis import strategies as st

from eventcore.workflows.definition import Workflow, parse_workflow
from eventcore.workflows.diff import compare, statuses_of
from eventcore.workflows.drawing import lines, mermaid, svg
from eventcore.workflows.graph import graph_of

ORDER = parse_workflow("""
slug: order
steps:
  - {id: check, plugin: check_order}
  - {id: stock, plugin: reserve, retry: {attempts: 3}, compensate: {plugin: release}}
  - {id: pay, needs: [check], plugin: charge, timeout: 30s, if: "{{ inputs.total > 0 }}"}
  - id: ship
    needs: [stock, pay]
    steps:
      - {id: pack, plugin: pack}
      - {id: label, needs: [], plugin: label}
  - {id: tell, needs: [ship, check], emit: order_done, with: "<&>"}
""")[0]


def test_groups_are_entered_and_left() -> None:
    graph = graph_of(ORDER)
    assert set(graph.edges) == {
        ("check", "stock"),
        ("check", "pay"),
        ("stock", "ship"),
        ("pay", "ship"),
        ("ship", "ship/pack"),
        ("ship", "ship/label"),
        ("ship/pack", "tell"),
        ("ship/label", "tell"),
        ("check", "tell"),
    }
    assert [len(layer) for layer in graph.layers()] == [1, 2, 1, 2, 1]


def test_the_terminal() -> None:
    graph = graph_of(ORDER, {"check": "completed", "stock": "failed"})
    drawn = [(row.rstrip(), node.path if node else "") for row, node in lines(graph)]
    assert drawn == [
        ("✔", "check"),
        ("├─┬─╮", ""),
        ("✘ │ │", "stock"),
        ("│ │ │", ""),
        ("│ · │", "pay"),
        ("├─╯ │", ""),
        ("·   │", "ship"),
        ("├─╮ │", ""),
        ("· │ │", "ship/pack"),
        ("╰─┼─┤", ""),
        ("  · │", "ship/label"),
        ("  ╰─┤", ""),
        ("    ·", "tell"),
    ]


@st.composite
def workflows(draw: st.DrawFn) -> Workflow:
    count = draw(st.integers(1, 14))
    steps = [
        {"id": f"s{i}", "sleep": 1, "needs": draw(st.lists(st.sampled_from([f"s{j}" for j in range(i)]), unique=True))}
        if i
        else {"id": "s0", "sleep": 1}
        for i in range(count)
    ]
    steps[0]["needs"] = []
    return Workflow.model_validate({"slug": "w", "steps": draw(st.permutations(steps))})


@settings(max_examples=60, deadline=None)
@given(workflows())
def test_every_form_draws_every_step_and_edge(workflow: Workflow) -> None:
    graph = graph_of(workflow)
    assert sorted(node.path for _, node in lines(graph) if node) == sorted(node.path for node in graph.nodes)
    assert mermaid(graph).count(" --> ") == len(graph.edges)
    root = ET.fromstring(svg(graph))
    space = "{http://www.w3.org/2000/svg}"
    assert len(root.findall(f"{space}path")) == len(graph.edges)
    boxes = [group.find(f"{space}rect") for group in root.findall(f"{space}g")]
    spots = [
        tuple(float(box.get(key, "0")) for key in ("x", "y", "width", "height")) for box in boxes if box is not None
    ]
    assert len(spots) == len(graph.nodes)
    for i, (x, y, w, h) in enumerate(spots):
        assert x >= 0
        assert x + w <= float(root.get("width", "0"))
        assert y + h <= float(root.get("height", "0"))
        assert not any(x < a + c and a < x + w and y < b + d and b < y + h for a, b, c, d in spots[:i])


def test_text_of_users_cannot_leave_its_place() -> None:
    text = 'slug: w\nsteps:\n  - {id: a, approve: "</text><script>x</script>\\"]; click a"}'
    graph = graph_of(parse_workflow(text)[0])
    assert "<script" not in svg(graph)
    ET.fromstring(svg(graph))
    assert not re.search(r'script>|"\]; click', mermaid(graph))


# -- differences -------------------------------------------------------------------------------------------------------


def test_what_a_changed_definition_means_for_a_run() -> None:
    new = ORDER.as_dict()
    new["steps"][0]["timeout"] = 5
    new["steps"][3]["steps"][1]["plugin"] = "print"
    del new["steps"][2]
    new["steps"][2]["needs"] = ["stock"]
    new["steps"].append({"id": "more", "sleep": 1})
    new["outputs"] = 1
    statuses = statuses_of([{"step": "check", "status": "running"}, {"step": "check", "status": "completed"}])
    changes = compare(ORDER, Workflow.model_validate(new), statuses)
    assert [(one.path, one.change, one.keys, one.status) for one in changes] == [
        ("", "changed", ("outputs",), ""),
        ("check", "changed", ("timeout",), "completed"),
        ("ship", "changed", ("needs",), ""),
        ("ship/label", "changed", ("plugin",), ""),
        ("more", "added", (), ""),
        ("pay", "removed", (), ""),
    ]
    assert "fork from it" in changes[1].means


def test_the_worst_of_the_items_counts() -> None:
    rows = [{"step": f"a[{i}]/b", "status": status} for i, status in enumerate(["completed", "failed", "completed"])]
    assert statuses_of(rows) == {"a/b": "failed"}
