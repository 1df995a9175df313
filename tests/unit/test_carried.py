"""What happens to the workflows of plugins in the odd cases."""

from __future__ import annotations

from pathlib import Path

import pytest

from eventcore.app.carried import CarriedWorkflows
from eventcore.kernel.errors import InvalidDefinition, InvalidInput
from eventcore.plugins.registry import PluginRegistry
from eventcore.workflows.registry import Registry


def plugin(registry: PluginRegistry, root: Path, name: str, **files: str):  # type: ignore[no-untyped-def]
    folder = root / name
    (folder / "workflows").mkdir(parents=True)
    for slug, text in files.items():
        (folder / "workflows" / f"{slug}.yaml").write_text(text)
    manifest = folder / "plugin.yaml"
    manifest.write_text(f"name: {name}\nversion: 1.0.0\nmain: main.py\n")
    (folder / "main.py").touch()
    registry.discover(folder, manifest, None, "home", None)
    return registry.records[name]


def text(slug: str) -> str:
    return f"slug: {slug}\nsteps: [{{id: a, emit: done}}]\n"


def test_two_plugins_with_one_slug_are_told_and_nothing_of_the_second_stays(tmp_path: Path) -> None:
    plugins, workflows = PluginRegistry(), Registry()
    carried = CarriedWorkflows(workflows, ())
    one, two = (plugin(plugins, tmp_path, name, b=text("b"), **{name: text(name)}) for name in ("one", "two"))
    carried.arrive(one)
    with pytest.raises(InvalidInput, match="the plugins one and two both carry the workflow 'b'"):
        carried.arrive(two)
    carried.leave(two)
    assert [plan.slug for plan in workflows] == ["b", "one"]
    carried.leave(one)
    assert [*workflows] == []


def test_a_definition_of_the_home_goes_first_and_stays(tmp_path: Path) -> None:
    plugins, workflows = PluginRegistry(), Registry()
    workflows.define({"slug": "b", "steps": [{"id": "own", "emit": "done"}]}, "home.yaml")
    carried = CarriedWorkflows(workflows, {"off"})
    one = plugin(plugins, tmp_path, "one", b=text("b"), c=text("c"), off=text("off"))
    carried.arrive(one)
    assert [plan.slug for plan in workflows] == ["b", "c"]
    assert workflows.origin("b") == "home.yaml"
    workflows.define({"slug": "c", "steps": [{"id": "own", "emit": "done"}]}, "code")
    carried.leave(one)
    assert {plan.slug: workflows.origin(plan.slug) for plan in workflows} == {"b": "home.yaml", "c": "code"}


def test_a_definition_with_a_mistake_keeps_all_of_them_out(tmp_path: Path) -> None:
    plugins, workflows = PluginRegistry(), Registry()
    one = plugin(plugins, tmp_path, "one", a=text("a"), b="slug: b\nstepz: []\n")
    with pytest.raises(InvalidDefinition, match=r"b\.yaml:2"):
        CarriedWorkflows(workflows, ()).arrive(one)
    assert [*workflows] == []
