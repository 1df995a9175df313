"""The tables of the reference are complete, agree with the code, and name nothing that is not there."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterable
from dataclasses import fields, replace
from functools import cache
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel

import eventcore
from eventcore.app.core import EventCore
from eventcore.app.wiring import ENV_FAULT
from eventcore.bus.bus import Bus
from eventcore.bus.history import History
from eventcore.bus.outcome import Outcome, Receipt, Status
from eventcore.bus.subscription import OVERFLOWS
from eventcore.home.layout import ENVIRONMENT, Home
from eventcore.home.settings_file import toml_value
from eventcore.hooks.caller import Hooks
from eventcore.hooks.outcome import CallStatus, HookOutcome
from eventcore.hooks.registry import STAGES
from eventcore.hooks.specs import HOOKS
from eventcore.kernel import errors
from eventcore.kernel.event import Event
from eventcore.kernel.faults import FAULT_POINTS
from eventcore.kernel.names import CORE_EVENTS
from eventcore.kernel.outside import PluginScope
from eventcore.kernel.records import RunStatus
from eventcore.kernel.settings import SettingInfo, reference
from eventcore.observe.metrics import METRICS
from eventcore.operations.api import ROUTES
from eventcore.plugins.face import Plugins
from eventcore.plugins.manifest import read_manifest
from eventcore.plugins.manifest import vocabulary as manifest_keys
from eventcore.plugins.manifest.model import PluginManifest
from eventcore.plugins.permissions import ENFORCED_BY, MEANING, NAMES_BY_KEY, WORDS, WORDS_BY_KEY, PluginPermission
from eventcore.sdk import context as sdk_context
from eventcore.workflows import expressions
from eventcore.workflows.definition import STEP_KINDS, Retry, Step, Trigger, Workflow
from eventcore.workflows.face import Workflows
from eventcore.workflows.reducer import State

DOCS = Path(__file__).resolve().parents[2] / "docs"


@cache
def section(page: str, heading: str) -> str:
    """The text under a heading of a page in docs/, up to the next heading."""
    text = (DOCS / f"{page}.md").read_text(encoding="utf-8")
    match = re.search(rf"^(#+) {re.escape(heading)}\n(.*?)(?=^#{{1,6}} |\Z)", text, re.DOTALL | re.MULTILINE)
    assert match, f"docs/{page}.md has no section {heading!r}"
    return match[2].partition("Not there yet: ")[0]


def rows(page: str, heading: str) -> list[tuple[str, str]]:
    """(name, rest of the row) for each name in the first cells of the tables under a heading."""
    found = []
    for line in section(page, heading).splitlines():
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip().strip("|"))]
        if line.startswith("|") and not set(line) <= set("|-: "):
            found += [(name, " | ".join(cells[1:])) for name in re.findall(r"`([^`]+)`", cells[0])]
    return found


def named(page: str, heading: str) -> set[str]:
    found = [name for name, _ in rows(page, heading)]
    assert len(found) == len(set(found)), f"docs/{page}.md, {heading}: a name stands there twice: {found}"
    return set(found)


def parameters(function: Any) -> set[str]:
    return set(inspect.signature(function).parameters) - {"self"}


def words(literal: Any) -> set[str]:
    return {str(word) for word in get_args(literal)}


@cache
def sources(*but: str) -> str:
    """All our code but the files whose path below the package begins so."""
    package = Path(eventcore.__file__).parent
    files = [path for path in package.rglob("*.py") if not str(path.relative_to(package)).startswith(but)]
    return "\n".join(path.read_text(encoding="utf-8") for path in files)


def test_core_events() -> None:
    assert named("events", "Events of the host") == CORE_EVENTS


def test_core_events_said_to_be_reserved_are_those_that_nothing_emits() -> None:
    code = sources("kernel/names.py", "cli/")
    unused = {name for name in CORE_EVENTS if f'"{name}"' not in code}
    said = {name for name, rest in rows("events", "Events of the host") if rest.startswith("Reserved")}
    assert said == unused


def test_event_fields() -> None:
    full = Event("i", "t", "s", 1.0, b"1", subject="s", key="k", run="r", causation_id="c", hops=1)
    full = Event(**{f.name: getattr(full, f.name) for f in fields(full)} | {"traceparent": "t", "idempotency_key": "k"})
    full = replace(full, ce_type="T", raw_extensions=b"{}", schema_version=2, blob="5")
    assert named("events", "An event") == set(full.as_dict())


def test_tables_of_the_bus() -> None:
    assert named("events", "Emitting") == parameters(Bus.emit)
    assert named("events", "Receipt") == {f.name for f in fields(Receipt)}
    assert named("events", "Subscribing") == parameters(Bus.subscribe) - {"allow", "owner", "tenant"}
    assert named("events", "Full buffers") == {*OVERFLOWS}
    assert named("events", "Outcomes") == words(Status)
    assert {f.name for f in fields(Outcome)} <= set(re.findall(r"`(\w+)`", section("events", "Outcomes")))
    assert named("events", "History") == parameters(History.query)


def test_hooks() -> None:
    found = dict(rows("hooks", "The hooks"))
    assert found.keys() == HOOKS.keys()
    for name, spec in HOOKS.items():
        assert spec.mode in found[name], f"{name} is a hook of mode {spec.mode}"
        for field in spec.payload.model_fields:
            assert f"`{field}`" in found[name], f"the payload of {name} has {field}"
        assert (spec.timeout, spec.budget, spec.on_error) == (5.0, 15.0, "skip"), "the text below the table says so"


def test_tables_of_hooks() -> None:
    assert named("hooks", "Stages") == {*STAGES}
    assert named("hooks", "What a call returns") == {f.name for f in fields(HookOutcome)}
    assert words(CallStatus) == set(re.findall(r"`(\w+)`", section("hooks", "Statuses of a handler")))
    assert named("hooks", "Registering in code") == parameters(Hooks.register) - {"owner", "place", "line"}


@pytest.mark.parametrize("info", [*reference()], ids=lambda info: f"{info.section}.{info.key}")
def test_settings(info: SettingInfo) -> None:
    found = dict(rows("settings", f"[{info.section}]"))
    assert info.key in found, f"docs/settings.md, [{info.section}]: {info.key} is missing"
    default = found[info.key].partition(" | ")[0].strip("` ")
    assert default == ("none" if info.default is None else toml_value(info.default))


def test_no_setting_is_made_up() -> None:
    text = (DOCS / "settings.md").read_text(encoding="utf-8")
    sections = set(re.findall(r"^### \[(\w+)\]$", text, re.MULTILINE))
    assert sections == {info.section for info in reference()}
    for name in sections:
        assert named("settings", f"[{name}]") == {info.key for info in reference() if info.section == name}


def test_the_home(tmp_path: Path) -> None:
    home, _ = Home.init(tmp_path)
    there = {f"{path.name}/" if path.is_dir() else path.name for path in (*tmp_path.iterdir(), home.ensure_state())}
    assert named("settings", "The home") == there - {".gitignore"}


def test_environment() -> None:
    assert named("settings", "Environment") == {
        *ENVIRONMENT,
        ENV_FAULT,
        "EVENTCORE_SECRET_<NAME>",
        "EVENTCORE_PLUGIN_<SLUG>__<KEY>",
    }


def test_the_catalogue() -> None:
    root = DOCS.parent / "plugins"
    found = {path.parent.name: path.parent for path in root.glob("*/*/plugin*.*")}
    said = dict(rows("plugins", "The catalogue"))
    assert said.keys() == found.keys()
    for name, rest in said.items():
        category, _, needs = (cell.strip() for cell in rest.split("|"))
        manifest = read_manifest(next(found[name].glob("plugin*.*")), category=found[name].parent.name)
        assert category == manifest.category, name
        assert {str(one) for one in manifest.permissions} == set(re.findall(r"`(\w+)`", needs)) - {"api_key"}, name


def test_manifest_keys() -> None:
    """Every key of every dialect stands once in the reference, and the defaults are those of the model."""
    page = (DOCS / "manifest.md").read_text(encoding="utf-8")
    headings = set(re.findall(r"^## (.+)$", page, re.MULTILINE)) - {"Required", "Files beside it"}
    found = [(name, rest) for heading in sorted(headings) for name, rest in rows("manifest", heading)]
    keys = [name for name, _ in found]
    assert len(keys) == len(set(keys)), f"described twice: {sorted(name for name in keys if keys.count(name) > 1)}"
    assert set(keys) == {key for dialect in manifest_keys.VOCABULARY.values() for key in dialect}
    fields = PluginManifest.model_fields
    for name, rest in found:
        said = rest.split(" | ")[1].strip()
        if name in fields and said.startswith("`") and name not in ("sandbox", "monitoring", "main"):
            default = fields[name].get_default(call_default_factory=True)
            assert said.strip("`") == (json.dumps(default) if not isinstance(default, tuple) else "()"), name


def test_tables_within_the_manifest() -> None:
    assert named("manifest", "Keys of resources") == set(manifest_keys._LIMITS)
    assert named("manifest", "Keys of marketplace") == set(manifest_keys._MARKETPLACE)
    sandbox = dict(rows("manifest", "Resources and sandbox"))["sandbox"]
    assert {*manifest_keys._SANDBOX} <= set(re.findall(r"`(\w+)`", sandbox))


def test_permissions_and_limits() -> None:
    found = dict(rows("permissions", "The permissions"))
    assert found.keys() == {str(one) for one in PluginPermission}
    for permission in PluginPermission:
        meaning, enforced = found[str(permission)].split(" | ")[0], found[str(permission)].split(" | ")[-1]
        assert meaning.lower() == MEANING[permission].lower(), permission
        assert enforced == ENFORCED_BY[permission], permission


def test_words_of_permissions() -> None:
    """The words of each dialect and what they map to."""
    found = {word: set(re.findall(r"`(\w+)`", rest)) for word, rest in rows("permissions", "Words in manifests")}
    plain = {word: {*map(str, meant)} for word, meant in WORDS.items() if word not in {str(one) for one in meant}}
    by_key = {
        f"{key}: {word}": {*map(str, meant)} for key, words_ in WORDS_BY_KEY.items() for word, meant in words_.items()
    }
    names = {f"{key}: [names]": {*map(str, meant)} for key, meant in NAMES_BY_KEY.items()}
    assert found == plain | by_key | names


def test_paths_of_the_api() -> None:
    found = dict(rows("permissions", "The host's API"))
    assert found.keys() == {route.title for route in ROUTES}
    for route in ROUTES:
        roles = set(re.findall(r"\w+", found[route.title].split(" | ")[0])) - {"anybody", "with", "a", "role"}
        assert roles == (set() if "user" in route.roles else route.roles - {"operator"}), route.title
        needs = f"`{route.needs}`" if route.needs else ""
        assert found[route.title].split(" | ")[1] == needs, route.title


def test_ctx() -> None:
    names = {name: value for name, value in vars(sdk_context.Context).items() if not name.startswith("_")}
    rooms = {name: value for name, value in names.items() if type(value).__module__.startswith("eventcore.sdk.")}
    below = {f"{name}.{verb}" for name, room in rooms.items() for verb in vars(type(room)) if not verb.startswith("_")}
    public = names.keys() - rooms.keys() - {"ask"}
    assert {name.partition("(")[0] for name in named("plugins", "What ctx offers")} == public | below


def test_scopes() -> None:
    assert named("outside", "Keys of a scope") == {*PluginScope.model_fields}


def aliases(model: type[BaseModel]) -> set[str]:
    return {field.alias or name for name, field in model.model_fields.items()}


def test_workflow_keys() -> None:
    assert named("workflows", "The definition") == aliases(Workflow)
    assert named("workflows", "Triggers") == aliases(Trigger)
    assert named("workflows", "Step kinds") == {*STEP_KINDS}
    assert named("workflows", "Keys of every step") == aliases(Step) - {*STEP_KINDS}
    retry = dict(rows("workflows", "Retry"))
    assert retry.keys() == aliases(Retry)
    for name, field in Retry.model_fields.items():
        default = field.default
        expected = f"{default:g}s" if isinstance(default, float) else "none" if default == () else str(default).lower()
        assert retry[name].partition(" | ")[0] == expected, name


def test_expressions() -> None:
    assert named("workflows", "Filters") == expressions._FILTERS
    methods = dict(rows("workflows", "Methods"))
    assert methods.keys() == {"text", "dict", "list"}
    for kind, name in ((str, "text"), (dict, "dict"), (list, "list")):
        assert set(re.findall(r"`(\w+)`", methods[name])) == expressions._METHODS[kind]
    bounds = section("workflows", "Bounds")
    assert f"{expressions.MAX_TEMPLATE:,} characters" in bounds
    assert f"{expressions.MAX_SIZE:,} characters or items" in bounds
    assert f"{expressions._MAX_BITS:,} bits" in bounds


def test_names_in_expressions() -> None:
    scope = State(inputs={}, run={}).scope()
    assert {name.partition(".")[0] for name in named("workflows", "Expressions")} == scope.keys()


def test_run_states() -> None:
    assert named("workflows", "Run states") == words(RunStatus)
    assert named("workflows", "Starting a run") == parameters(Workflows.start)


def test_embedding_tables() -> None:
    parts = {name for name, value in vars(EventCore).items() if isinstance(value, property)} - {"engine", "remote"}
    assert named("embedding", "The parts") == {f"core.{name}" for name in parts}
    assert named("embedding", "Opening") == parameters(EventCore.__init__)
    assert named("embedding", "Calling intents") == parameters(Plugins.run)
    assert named("embedding", "Fault points") == FAULT_POINTS.keys()
    assert named("embedding", "Public names") == {*eventcore.__all__} - {"__version__"}


def every_error(base: type[errors.EventCoreError]) -> Iterable[type[errors.EventCoreError]]:
    yield base
    for child in base.__subclasses__():
        if child.__module__ == errors.__name__:
            yield from every_error(child)


def test_error_codes() -> None:
    said = {name: rest.split("`")[1] for name, rest in rows("embedding", "Errors")}
    assert said == {error.__name__: error.code for error in every_error(errors.EventCoreError)}


def test_metrics() -> None:
    found = dict(rows("embedding", "Metrics"))
    assert found.keys() == {metric.name for metric in METRICS}
    code = sources("observe/metrics.py")
    for metric in METRICS:
        assert metric.kind in found[metric.name], f"{metric.name} is a {metric.kind}"
        assert set(re.findall(r"`(\w+)`", found[metric.name])) == set(metric.labels), metric.name
        fed = f'"{metric.name}"' in code
        assert ("not fed yet" in found[metric.name]) is not fed, f"{metric.name}: fed is {fed}"
