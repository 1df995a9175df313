"""Graphs of workflows as lines for a terminal, as Mermaid and as SVG."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from html import escape
from itertools import pairwise

from eventcore.workflows.graph import Graph, Node

MARKS = {
    "completed": "✔",
    "failed": "✘",
    "running": "▶",
    "waiting": "◷",
    "retrying": "↻",
    "skipped": "○",
    "cancelled": "⊘",
    "undone": "↶",
    "pending": "·",
}
_UP, _DOWN, _LEFT, _RIGHT = 1, 2, 4, 8
_LINES = " ╵╷│╴╯╮┤╶╰╭├─┴┬┼"


# -- terminal ----------------------------------------------------------------------------------------------------------


def lines(graph: Graph) -> list[tuple[str, Node | None]]:
    """Rows as (drawing, step); rows between steps have none. Drawn as `git log --graph` does, one lane for each step
    that is still to come."""
    nodes = {node.path: node for node in graph.nodes}
    following, lanes = graph.following(), list[str | None]()
    rows: list[tuple[str, Node | None]] = []
    for path in graph.ordered():
        if path not in lanes:
            _put(lanes, path)
        at = lanes.index(path)
        mark = MARKS.get(nodes[path].status, "●")
        rows.append(
            ("".join((mark if i == at else "│" if lane else " ") + " " for i, lane in enumerate(lanes)), nodes[path])
        )
        if link := _link(lanes, at, following[path]):
            rows.append((link, None))
        while lanes and lanes[-1] is None:
            lanes.pop()
    return rows


def _put(lanes: list[str | None], path: str) -> int:
    """Give a step the first free lane."""
    if None in lanes:
        free = lanes.index(None)
        lanes[free] = path
        return free
    lanes.append(path)
    return len(lanes) - 1


def _link(lanes: list[str | None], at: int, following: list[str]) -> str:
    """The row below a step: its lane goes on to what follows, branches off, or joins lanes that lead there already."""
    cells = [_UP | _DOWN if lane else 0 for lane in lanes]
    lanes[at] = None
    cells[at] = _UP if following else 0
    fresh = [path for path in following if path not in lanes]
    if fresh:
        lanes[at], cells[at] = fresh[0], _UP | _DOWN
    bars = [False] * (len(lanes) + len(fresh))
    for path in following:
        if path == lanes[at]:
            continue
        known = path in lanes
        to = lanes.index(path) if known else _put(lanes, path)
        cells += [0] * (to + 1 - len(cells))
        cells[to] |= (0 if known else _DOWN) | (_LEFT if to > at else _RIGHT)
        cells[at] |= _RIGHT if to > at else _LEFT
        low, high = min(at, to), max(at, to)
        for i in range(low, high):
            bars[i] = True
            if i > low:
                cells[i] |= _LEFT | _RIGHT
    if not any(cells):
        return ""
    return "".join(_LINES[cell] + ("─" if bars[i] else " ") for i, cell in enumerate(cells))


# -- Mermaid -----------------------------------------------------------------------------------------------------------

_CLASSES = {
    "completed": "fill:#dcfce7,stroke:#16a34a",
    "failed": "fill:#fee2e2,stroke:#dc2626",
    "running": "fill:#dbeafe,stroke:#2563eb",
    "waiting": "fill:#fef9c3,stroke:#ca8a04",
    "undone": "fill:#f8fafc,stroke:#94a3b8,stroke-dasharray:4 3",
}


def mermaid(graph: Graph) -> str:
    """A Mermaid flowchart."""
    names = {node.path: f"s{number}" for number, node in enumerate(graph.nodes)}
    out = ["flowchart TD"]
    for node in graph.nodes:
        text = "<br/>".join(_mermaid_text(part) for part in (node.label, node.does, *node.notes))
        start, end = ("{{", "}}") if node.does.startswith(("wait", "approve", "sleep")) else ("[", "]")
        out.append(f'  {names[node.path]}{start}"{text}"{end}')
    out += [f"  {names[one]} --> {names[other]}" for one, other in graph.edges]
    for status, style in _CLASSES.items():
        if chosen := [names[node.path] for node in graph.nodes if node.status == status]:
            out += [f"  classDef {status} {style},color:#111", f"  class {','.join(chosen)} {status}"]
    return "\n".join(out) + "\n"


def _mermaid_text(text: str) -> str:
    # Mermaid reads entities written with # and reads anything else it knows as markup.
    return re.sub(r"[^\w\s.,:/()=+-]", lambda match: f"#{ord(match[0])};", text)


# -- SVG ---------------------------------------------------------------------------------------------------------------

_WIDTH, _LINE, _PAD, _GAP_X, _GAP_Y, _BEND = 230, 16, 12, 36, 44, 28
_SWEEPS = 8
_CUT = 34
_STYLE = """
.box{fill:#fff;stroke:#94a3b8;stroke-width:1.5}.edge{fill:none;stroke:#94a3b8;stroke-width:1.5}
text{font:12px system-ui,sans-serif;fill:#475569}.id{font-weight:600;font-size:13px;fill:#0f172a}
.title{font-weight:600;font-size:15px;fill:#0f172a}.back{fill:#f8fafc}
.completed{fill:#dcfce7;stroke:#16a34a}.failed{fill:#fee2e2;stroke:#dc2626}.running{fill:#dbeafe;stroke:#2563eb}
.waiting,.retrying{fill:#fef9c3;stroke:#ca8a04}.skipped,.cancelled,.undone,.pending{stroke-dasharray:4 3}
@media(prefers-color-scheme:dark){.back{fill:#0f172a}.box{fill:#1e293b;stroke:#64748b}.edge{stroke:#64748b}
text{fill:#cbd5e1}.id,.title{fill:#f8fafc}.completed{fill:#14532d}.failed{fill:#7f1d1d}.running{fill:#1e3a8a}
.waiting,.retrying{fill:#713f12}}
"""


@dataclass(slots=True)
class _Place:
    """A step, or the bend of an edge that passes a layer, where it is drawn. `x` is its middle."""

    layer: int
    width: float
    before: list[str] = field(default_factory=list)
    after: list[str] = field(default_factory=list)
    x: float = 0.0


def svg(graph: Graph) -> str:
    """A drawing: layers from top to bottom; long edges bend around what is between (Sugiyama's method)."""
    nodes = {node.path: node for node in graph.nodes}
    layers = graph.layers()
    places, routes = _places(graph, layers)
    _untangle(layers, places)
    heights = [max(_height(nodes[one]) for one in layer if one in nodes) for layer in layers]
    tops = [40 + sum(heights[:i]) + _GAP_Y * i for i in range(len(layers))]
    width = max((_row_width(layer, places) for layer in layers), default=_WIDTH) + 2 * _GAP_X
    for layer in layers:
        left = (width - _row_width(layer, places)) / 2
        for one in layer:
            places[one].x = left + places[one].width / 2
            left += places[one].width + _GAP_X
    height = (tops[-1] + heights[-1] if tops else 40) + 24
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:g}" height="{height:g}" '
        f'viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{escape(graph.title)}">',
        f"<style>{_STYLE}</style>",
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0L8 4L0 8z" fill="#94a3b8"/></marker></defs>',
        f'<rect class="back" width="{width:g}" height="{height:g}"/>',
        f'<text class="title" x="{width / 2:g}" y="24" text-anchor="middle">{escape(graph.title)}</text>',
    ]
    parts += [_edge(route, places, nodes, tops, heights) for route in routes]
    parts += [_box(node, places[path], tops[places[path].layer]) for path, node in nodes.items()]
    return "\n".join([*parts, "</svg>"]) + "\n"


def _places(graph: Graph, layers: list[list[str]]) -> tuple[dict[str, _Place], list[list[str]]]:
    """Places for steps and for bends, which are added to the layers; the route of each edge."""
    places = {path: _Place(i, _WIDTH) for i, layer in enumerate(layers) for path in layer}
    routes: list[list[str]] = []
    for number, (start, end) in enumerate(graph.edges):
        route = [start]
        for layer in range(places[start].layer + 1, places[end].layer):
            bend = f"|{number}|{layer}"  # no step's path holds a bar
            places[bend] = _Place(layer, _BEND)
            layers[layer].append(bend)
            route.append(bend)
        route.append(end)
        routes.append(route)
        for one, other in pairwise(route):
            places[one].after.append(other)
            places[other].before.append(one)
    return places, routes


def _untangle(layers: list[list[str]], places: Mapping[str, _Place]) -> None:
    """Order each layer by the middle of its neighbours, down and up again, so that few edges cross."""
    for sweep in range(_SWEEPS):
        down = sweep % 2 == 0
        for layer in layers if down else reversed(layers):
            ranks = {one: i for row in layers for i, one in enumerate(row)}

            def middle(one: str, ranks: dict[str, int] = ranks, down: bool = down) -> float:
                near = places[one].before if down else places[one].after
                return sum(ranks[other] for other in near) / len(near) if near else ranks[one]

            layer.sort(key=middle)


def _row_width(layer: list[str], places: Mapping[str, _Place]) -> float:
    return sum(places[one].width for one in layer) + _GAP_X * (len(layer) - 1)


def _height(node: Node) -> float:
    return 2 * _PAD + _LINE * (2 + len(node.notes))


def _edge(
    route: list[str],
    places: Mapping[str, _Place],
    nodes: Mapping[str, Node],
    tops: list[float],
    heights: list[float],
) -> str:
    x, y = places[route[0]].x, tops[places[route[0]].layer] + _height(nodes[route[0]])
    path = f"M{x:g} {y:g}"
    for one in route[1:]:
        place = places[one]
        top = tops[place.layer] - (3 if one in nodes else 0)
        if y < top - _GAP_Y:  # the box above is lower than its layer is high
            y = tops[place.layer] - _GAP_Y
            path += f"V{y:g}"
        middle = (y + top) / 2
        path += f"C{x:g} {middle:g} {place.x:g} {middle:g} {place.x:g} {top:g}"
        x, y = place.x, top
        if one not in nodes:
            y = tops[place.layer] + heights[place.layer]
            path += f"V{y:g}"
    return f'<path class="edge" d="{path}" marker-end="url(#tip)"/>'


def _box(node: Node, place: _Place, top: float) -> str:
    left, height = place.x - _WIDTH / 2, _height(node)
    mark = f" {MARKS[node.status]}" if node.status in MARKS else ""
    texts = [f'<text class="id" x="{left + _PAD:g}" y="{top + _PAD + 11:g}">{escape(_cut(node.label))}{mark}</text>']
    for number, text in enumerate((node.does, *node.notes), 1):
        texts.append(f'<text x="{left + _PAD:g}" y="{top + _PAD + 11 + number * _LINE:g}">{escape(_cut(text))}</text>')
    full = escape("\n".join((node.label, node.does, *node.notes, node.status)).strip())
    box = f'<rect class="box {node.status}" x="{left:g}" y="{top:g}" width="{_WIDTH}" height="{height:g}" rx="8"/>'
    return f"<g><title>{full}</title>{box}{''.join(texts)}</g>"


def _cut(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _CUT else text[: _CUT - 1] + "…"
