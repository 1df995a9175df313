"""The documentation is true: its code runs, its files are valid, its links lead somewhere, and its tables are complete.

A fenced block may say `file=PATH` after its language: it is then a file of the page's home, written before the later
blocks of that page run. A Python block that begins with `# continues` goes on where the block above it ended. What a
`print(...)  # text` is said to print, it must print.
"""

from __future__ import annotations

import ast
import inspect
import io
import json
import re
import shlex
import tomllib
from collections.abc import Iterable, Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from types import UnionType
from typing import Any, get_args

import anyio
import pytest
import yaml
from pydantic import BaseModel

import eventcore
from eventcore.app.core import EventCore
from eventcore.app.wiring import ENV_FAULT
from eventcore.bus.bus import Bus
from eventcore.bus.history import History
from eventcore.bus.outcome import Outcome, Receipt, Status
from eventcore.bus.subscription import OVERFLOWS
from eventcore.home.layout import ENVIRONMENT
from eventcore.home.settings_file import read_settings, toml_value
from eventcore.hooks.caller import CallStatus, HookOutcome, Hooks
from eventcore.hooks.registry import STAGES
from eventcore.hooks.specs import HOOKS
from eventcore.kernel import errors
from eventcore.kernel.event import Event
from eventcore.kernel.faults import FAULT_POINTS
from eventcore.kernel.names import CORE_EVENTS
from eventcore.kernel.records import RunStatus
from eventcore.kernel.settings import SettingInfo, reference
from eventcore.observe.metrics import METRICS
from eventcore.plugins.face import Plugins
from eventcore.plugins.manifest import check_folder, parse_manifest
from eventcore.plugins.manifest import vocabulary as manifest_keys
from eventcore.plugins.manifest.model import PluginManifest
from eventcore.plugins.manifest.reader import Vocabulary
from eventcore.plugins.permissions import PluginPermission
from eventcore.sdk import context as sdk_context
from eventcore.workflows import expressions
from eventcore.workflows.definition import STEP_KINDS, Retry, Step, Trigger, Workflow
from eventcore.workflows.face import Workflows
from eventcore.workflows.plan import Plan
from eventcore.workflows.registry import Registry

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
OURS = ("embedding", "events", "hooks", "index", "plugins", "settings", "workflows")

_FENCE = re.compile(r"^(?P<fence>`{3,})(?P<info>[^\n`]*)\n(?P<body>.*?)^(?P=fence)[ \t]*$", re.DOTALL | re.MULTILINE)


# -- reading a page ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Block:
    """A fenced block: where it begins, its language, the file it stands for (or None), and its text."""

    page: Path
    line: int
    language: str
    file: str | None
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


@cache
def blocks(page: Path) -> tuple[Block, ...]:
    text = page.read_text(encoding="utf-8")
    found = []
    for match in _FENCE.finditer(text):
        language, *options = match["info"].split() or [""]
        named = dict(option.split("=", 1) for option in options if "=" in option)
        line = text.count("\n", 0, match.start()) + 1
        found.append(Block(page, line, language, named.get("file"), match["body"]))
    return tuple(found)


def every(*languages: str) -> list[Block]:
    return [block for page in PAGES for block in blocks(page) if block.language in languages]


@cache
def section(page: str, heading: str) -> str:
    """The text under a heading of a page in docs/, up to the next heading of the same level or above."""
    text = (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8")
    match = re.search(rf"^(#+) {re.escape(heading)}\n(.*?)(?=^#{{1,6}} |\Z)", text, re.DOTALL | re.MULTILINE)
    assert match, f"docs/{page}.md has no section {heading!r}"
    return match[2]


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
    parts = get_args(literal) if not isinstance(literal, UnionType) else ()
    return {str(part) for part in parts}


# -- code blocks -------------------------------------------------------------------------------------------------------


def python_groups() -> Iterator[tuple[Block, ...]]:
    """The Python blocks that run: each with those that continue it."""
    for page in PAGES:
        group: list[Block] = []
        for block in blocks(page):
            if block.language != "python" or block.file:
                continue
            if group and not block.text.startswith("# continues"):
                yield tuple(group)
                group = []
            group.append(block)
        if group:
            yield tuple(group)


def write_files(last: Block, home: Path) -> None:
    """Write the files that the page has shown up to `last`."""
    for block in blocks(last.page):
        if block.file and block.line < last.line:
            path = home / block.file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text, encoding="utf-8")


def run_python(source: str, name: str) -> str:
    """Run a block, with `await` and `async with` allowed at its top level; return what it printed."""
    namespace: dict[str, Any] = {"__name__": "__snippet__"}
    code = compile(source, name, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)

    async def run_async() -> None:
        with anyio.fail_after(20):
            await eval(code, namespace)

    with redirect_stdout(io.StringIO()) as output:
        if code.co_flags & inspect.CO_COROUTINE:
            anyio.run(run_async)
        else:
            exec(code, namespace)
    return output.getvalue()


def expected_lines(source: str) -> list[str]:
    return re.findall(r"^\s*print\(.*\)  # (.+)$", source, re.MULTILINE)


@pytest.mark.parametrize("group", [*python_groups()], ids=lambda group: str(group[0]))
def test_python_blocks_run(group: tuple[Block, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_files(group[-1], tmp_path)
    source = "\n".join(block.text for block in group)
    printed = iter(run_python(source, str(group[0])).splitlines())
    for line in expected_lines(source):
        assert line in printed, f"{group[0]}: nothing prints {line!r}"


def test_python_files_shown_are_used() -> None:
    """A file that no later block of its page can use would never be run."""
    for block in every("python"):
        if block.file:
            users = [group for group in python_groups() if group[-1].page == block.page and group[-1].line > block.line]
            assert users, f"{block} is a file that nothing on the page runs"


# -- files in blocks ---------------------------------------------------------------------------------------------------


def is_manifest(value: Any) -> bool:
    return isinstance(value, dict) and ("plugin" in value or ({"name", "version"} <= value.keys() and "steps" not in value))


def check_manifest(block: Block, tmp_path: Path) -> None:
    folder = tmp_path / Path(block.file or "plugins/example/x").parent
    name = Path(block.file or "").name or {"json": "plugin_manifest.json"}.get(block.language, f"plugin.{block.language}")
    manifest = parse_manifest(block.text, str(folder / name), block.language, str(folder))  # type: ignore[arg-type]
    assert not manifest.warnings, f"{block}: {manifest.warnings}"
    assert not manifest.extra, f"{block}: nothing reads {sorted(manifest.extra)}"
    if block.file:
        write_files(blocks(block.page)[-1], tmp_path)
        assert not check_folder(manifest), f"{block}: {check_folder(manifest)}"


def as_workflow(value: Any) -> Any:
    """A definition, for a whole one or for the steps or triggers of one; None for anything else."""
    if isinstance(value, list) and value and all(isinstance(item, dict) and "id" in item for item in value):
        return {"slug": "fragment", "steps": value}
    if isinstance(value, dict) and "steps" in value:
        return {"slug": "fragment", **value}
    if isinstance(value, dict) and "triggers" in value:
        return {"slug": "fragment", "steps": [{"id": "nothing", "sleep": 0}], **value}
    return None


@pytest.mark.parametrize("block", every("yaml", "yml"), ids=str)
def test_yaml_blocks_are_valid(block: Block, tmp_path: Path) -> None:
    value = yaml.safe_load(block.text)
    if is_manifest(value):
        check_manifest(block, tmp_path)
    elif isinstance(value, dict) and "steps" in value and "slug" in value:
        assert isinstance(Registry().compile(block.text, str(block)), Plan)
    elif (workflow := as_workflow(value)) is not None:
        assert isinstance(Registry().compile(workflow, str(block)), Plan)


@pytest.mark.parametrize("block", every("json"), ids=str)
def test_json_blocks_are_valid(block: Block, tmp_path: Path) -> None:
    value = json.loads(block.text)
    if is_manifest(value) or (block.file or "").endswith("plugin_manifest.json"):
        check_manifest(block, tmp_path)


@pytest.mark.parametrize("block", every("toml"), ids=str)
def test_toml_blocks_are_valid(block: Block, tmp_path: Path) -> None:
    if is_manifest(tomllib.loads(block.text)):
        check_manifest(block, tmp_path)
    else:
        file = tmp_path / "eventcore.toml"
        file.write_text(block.text, encoding="utf-8")
        read_settings(file)


# -- command lines -----------------------------------------------------------------------------------------------------


def command_lines(text: str) -> Iterator[list[str]]:
    """The words of each `eventcore ...` in a shell block; pipes, redirections and comments are taken off."""
    for line in text.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line.removeprefix("$ "), posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        parts: list[list[str]] = [[]]
        for token in lexer:
            if token[0] in "|&;<>(" and set(token) <= set("|&;<>()"):
                parts.append([token] if token[0] in "<>" else [])
            else:
                parts[-1].append(token)
        for part in parts:
            if part and part[0] == "eventcore":
                yield part[1:]
            elif part[:3] == ["python", "-m", "eventcore"]:
                yield part[3:]


def test_command_lines_are_split_as_a_shell_does() -> None:
    text = "# eventcore nothing\n$ git log | eventcore emit a_b --from -  # each line\neventcore chat < file.txt && eventcore runs list\n"
    assert [*command_lines(text)] == [["emit", "a_b", "--from", "-"], ["chat"], ["runs", "list"]]


def parse_command(root: Any, args: list[str]) -> None:
    """Parse a command line down to its last command, without running any of it.

    Raises:
        click.UsageError: the CLI would refuse it.
    """
    import click

    command, context = root, root.make_context("eventcore", list(args), resilient_parsing=False)
    while isinstance(command, click.Group):
        rest = [*context._protected_args, *context.args]
        if not rest:
            break
        name, command, rest = command.resolve_command(context, rest)
        context = command.make_context(name, rest, parent=context)


@pytest.mark.parametrize("block", every("sh", "shell", "bash", "console"), ids=str)
def test_command_lines_parse(block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import click

    monkeypatch.chdir(tmp_path)
    root = command_root()
    for args in command_lines(block.text):
        try:
            parse_command(root, args)
        except click.exceptions.Exit as stop:  # --help and --version
            assert stop.exit_code == 0
        except click.ClickException as error:
            pytest.fail(f"{block}: eventcore {shlex.join(args)}: {error.format_message()}")


def command_root() -> Any:
    from eventcore.cli.root import root

    return root


# -- links -------------------------------------------------------------------------------------------------------------


def anchors(page: Path) -> set[str]:
    text = _FENCE.sub("", page.read_text(encoding="utf-8"))
    titles = re.findall(r"^#{1,6} (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    text = _FENCE.sub("", page.read_text(encoding="utf-8"))
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        where = (page.parent / path).resolve() if path else page
        assert where.exists(), f"{page.name} links to {target}, which is not there"
        if anchor and where.suffix == ".md":
            assert anchor in anchors(where), f"{page.name} links to {target}; {where.name} has no such heading"


def test_the_index_names_every_page() -> None:
    text = (ROOT / "docs/index.md").read_text(encoding="utf-8")
    for page in (ROOT / "docs").glob("*.md"):
        assert page.name == "index.md" or f"]({page.name}" in text, f"docs/index.md does not link to {page.name}"


@pytest.mark.parametrize("page", OURS)
def test_pages_say_what_is_not_there(page: str) -> None:
    text = (ROOT / f"docs/{page}.md").read_text(encoding="utf-8")
    assert page == "index" or text.rstrip().splitlines()[-1].startswith("Not there yet: ")


# -- the tables are complete, and name nothing that is not there -------------------------------------------------------


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
    text = (ROOT / "docs/settings.md").read_text(encoding="utf-8")
    sections = set(re.findall(r"^### \[(\w+)\]$", text, re.MULTILINE))
    assert sections == {info.section for info in reference()}
    for name in sections:
        assert named("settings", f"[{name}]") == {info.key for info in reference() if info.section == name}


def test_environment() -> None:
    assert named("settings", "Environment") == {*ENVIRONMENT, ENV_FAULT, "EVENTCORE_SECRET_<NAME>"}


def _keys(vocabulary: Vocabulary) -> set[str]:
    return set(vocabulary)


def test_manifest_keys() -> None:
    headings = ("Who and what", "What runs and who may call it", "Hooks, commands and events", "Permissions", "Schemas and settings")
    found = [name for heading in (*headings, "Kept, not acted on") for name, _ in rows("plugins", heading)]
    words = {str(permission) for permission in PluginPermission}
    keys = [name for name in found if name not in words or name == "permissions"]
    assert len(keys) == len(set(keys)), f"described twice: {sorted(name for name in keys if keys.count(name) > 1)}"
    assert set(keys) == {key for dialect in manifest_keys.VOCABULARY.values() for key in dialect}


def test_manifest_keys_said_to_be_kept_only_are_those_that_nothing_reads() -> None:
    """The page must not promise more than the host does; nor less, once it does more."""
    code = sources("plugins/manifest/")
    for key in named("plugins", "Kept, not acted on") & set(PluginManifest.model_fields):
        assert not re.search(rf"\b(?:manifest|described\(\))\.{key}\b", code), f"something reads {key} now; say what"


def test_permissions_and_limits() -> None:
    assert {str(one) for one in PluginPermission} == named("plugins", "Permission words")
    assert named("plugins", "Keys of resources") == _keys(manifest_keys._LIMITS)


def test_ctx() -> None:
    public = {name for name in vars(sdk_context.Context) if not name.startswith("_")} - {"memory", "workflows", "ask"}
    below = {"memory.read", "memory.write", "workflows.start"}
    assert {name.partition("(")[0] for name in named("plugins", "What ctx offers")} == public | below


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
        said = retry[name].partition(" | ")[0].strip("` ")
        assert said in (str(default).lower(), f"{default:g}s" if isinstance(default, float) else "none"), name


def test_expressions() -> None:
    assert named("workflows", "Filters") == expressions._FILTERS
    methods = dict(rows("workflows", "Methods"))
    assert methods.keys() == {"text", "dict", "list"}
    for kind, name in ((str, "text"), (dict, "dict"), (list, "list")):
        assert set(re.findall(r"`(\w+)`", methods[name])) == expressions._METHODS[kind]
    bounds = section("workflows", "Bounds")
    for number in (expressions.MAX_TEMPLATE, expressions.MAX_SIZE, expressions._MAX_BITS):
        assert f"{number:,}" in bounds


def test_run_states() -> None:
    assert named("workflows", "Run states") == words(RunStatus)
    assert named("workflows", "Starting a run") == parameters(Workflows.start)


def test_embedding_tables() -> None:
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
