"""The documentation is true: its code runs, its files are valid, its command lines parse, its links lead somewhere.

Its tables are `test_docs_tables.py`'s.

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
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import anyio
import click
import pytest
import yaml

from eventcore.cli.root import root
from eventcore.home.settings_file import read_settings
from eventcore.plugins.manifest import check_folder, parse_manifest
from eventcore.workflows.plan import Plan
from eventcore.workflows.registry import Registry

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
OURS = tuple("containers delivery embedding events hooks index outside plugins settings workflows".split())

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
        with anyio.fail_after(100):
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
    if not isinstance(value, dict) or "steps" in value:
        return False
    return "plugin" in value or {"name", "version"} <= value.keys()


def check_manifest(block: Block, tmp_path: Path) -> None:
    path = tmp_path / (block.file or "plugins/example/plugin")
    manifest = parse_manifest(block.text, str(path), block.language, str(path.parent))  # type: ignore[arg-type]
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
        lexer = shlex.shlex(line.strip().removeprefix("$ "), posix=True, punctuation_chars=True)
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
    text = """
        # eventcore nothing
        $ git log | eventcore emit a_b --from -  # each line
        eventcore chat < file.txt && eventcore runs list
        eventcore run x \\
            --params '{"a": "b"}'
    """
    assert [*command_lines(text)] == [
        ["emit", "a_b", "--from", "-"],
        ["chat"],
        ["runs", "list"],
        ["run", "x", "--params", '{"a": "b"}'],
    ]


@pytest.mark.parametrize("block", every("sh", "shell", "bash", "console"), ids=str)
def test_command_lines_parse(block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(click.Command, "invoke", lambda self, context: None)  # parse all of it, carry out nothing
    monkeypatch.setattr(click.Path, "convert", lambda self, value, *context: value)  # files of the reader's own
    for words in command_lines(block.text):
        args = ["runs" if word == "COMMAND" else word for word in words]  # any command will do
        try:
            root.main(args, prog_name="eventcore", standalone_mode=False)
        except click.ClickException as error:
            pytest.fail(f"{block}: eventcore {shlex.join(args)}: {error.format_message()}")


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
