"""Wild manifests: broken, huge, hostile and half right, in all three formats. Each gives a manifest or errors that say
file and line, within its time, and runs nothing."""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from eventcore.home.discovery import find_plugins
from eventcore.kernel.documents import Format
from eventcore.kernel.errors import InvalidManifest, Problem
from eventcore.plugins.entry_scan import scan_entry
from eventcore.plugins.manifest import MANIFEST_NAMES, PluginManifest, parse_manifest
from eventcore.plugins.manifest.vocabulary import VOCABULARY
from eventcore.plugins.registry import PluginRegistry

FILES: dict[Format, str] = {dialect: name for name, dialect in MANIFEST_NAMES.items()}
#: Seconds of the processor that the worst of them may take.
LONGEST = 5.0

GOOD = {"name": "good", "version": "1.0.0", "module": "handler"}


def bomb(levels: int, width: int) -> str:
    """The billion laughs: each alias stands for `width` of the one before."""
    lines = [f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * width)}]" for level in range(1, levels)]
    return "\n".join(["name: bomb", "version: 1.0.0", "a0: &a0 lol", *lines])


def deep(opening: str, closing: str, levels: int) -> str:
    return opening * levels + closing * levels


#: What it is, its format, its text, and words that must stand in the errors; None: it is good, and says what is odd.
CORPUS: list[tuple[str, Format, str | bytes, str | None]] = [
    # YAML that expands, repeats, refers to itself, or asks for objects
    ("billion laughs", "yaml", bomb(12, 10), "more than"),
    ("quadratic blow-up", "yaml", "a: &a [" + "x," * 5000 + "]\nb: [" + "*a," * 5000 + "]", "more than"),
    ("alias to itself", "yaml", "name: x\nversion: 1.0.0\nextra: &a [*a]", "alias|anchor|undefined"),
    ("merge key cycle", "yaml", "name: x\nversion: 1.0.0\nx: &x {<<: *x}", "merge keys"),
    ("unknown alias", "yaml", "name: *nobody\nversion: 1.0.0", "alias|anchor|undefined"),
    ("python object", "yaml", "name: !!python/object/apply:os.system ['touch pwned']\nversion: 1.0.0", "tag"),
    ("python name", "yaml", "name: !!python/name:os.system\nversion: 1.0.0", "tag"),
    ("own tag", "yaml", "name: !evil x\nversion: 1.0.0", "tag"),
    ("duplicate key", "yaml", "name: a\nversion: 1.0.0\nname: b", "twice"),
    ("duplicate key below", "yaml", "name: a\nversion: 1.0.0\nresources: {memory_mb: 1, memory_mb: 2}", "twice"),
    ("two documents", "yaml", "name: a\nversion: 1.0.0\n---\nname: b", "document"),
    ("tab as indent", "yaml", "name: a\nresources:\n\tmemory_mb: 1", "YAML|token|tab"),
    ("unclosed flow", "yaml", "name: [a, b", "YAML|expected"),
    ("key that is a list", "yaml", "name: a\nversion: 1.0.0\n? [a, b]\n: c", "key"),
    ("null key", "yaml", "name: a\nversion: 1.0.0\n~: c", "key"),
    ("not a table", "yaml", "- a\n- b", "table"),
    ("only a comment", "yaml", "# nothing", "table"),
    ("empty", "yaml", "", "table"),
    ("norway", "yaml", "name: no\nversion: 1.0.0", None),
    ("version as number", "yaml", "name: a\nversion: 1.0", "quotes"),
    ("infinite limit", "yaml", "name: a\nversion: 1.0.0\nresources: {memory_mb: .inf}", "number|finite|inf"),
    ("huge number", "yaml", f"name: a\nversion: 1.0.0\nresources: {{memory_mb: {'9' * 400}}}", ""),
    # JSON
    ("duplicate key", "json", '{"name": "a", "version": "1.0.0", "module": "handler", "name": "b"}', "twice"),
    ("escaped duplicate", "json", '{"name": "a", "version": "1.0.0", "module": "h", "n\\u0061me": "b"}', "twice"),
    ("trailing comma", "json", '{"name": "a",}', "JSON"),
    ("trailing text", "json", '{"name": "a"} x', "JSON"),
    ("NaN", "json", '{"name": "a", "resources": {"memory_mb": NaN}}', "JSON"),
    ("comment", "json", '{"name": "a" /* x */}', "JSON"),
    ("single quotes", "json", "{'name': 'a'}", "JSON"),
    ("a list", "json", "[1, 2]", "table"),
    ("a word", "json", '"name"', "table"),
    ("null", "json", "null", "table"),
    ("empty", "json", "", "JSON"),
    ("lone surrogate", "json", '{"name": "\\ud800", "version": "1.0.0", "module": "handler"}', "JSON|surrogate|slug"),
    ("nested deeply", "json", '{"name": ' + deep("[", "]", 5000) + "}", "nested|deep|JSON"),
    ("nested in tables", "json", deep('{"a":', "}", 300).replace("}}", "1}}", 1), "nested|deep|JSON"),
    ("huge number", "json", '{"name": "a", "version": "1.0.0", "module": "h", "resources": {"memory_mb": 1e999}}', ""),
    ("not UTF-8", "json", b'{"name": "\xff\xfe"}', "UTF-8"),
    ("UTF-16", "json", '{"name": "a"}'.encode("utf-16"), "UTF-8|JSON"),
    ("NUL", "json", '{"name": "a\\u0000b", "version": "1.0.0", "module": "handler"}', None),
    ("too large", "json", '{"name": "' + "x" * 2**20 + '"}', "larger"),
    # TOML
    ("duplicate key", "toml", '[plugin]\nname = "a"\nversion = "1.0.0"\nname = "b"', "twice|overwrite|already"),
    ("duplicate table", "toml", '[plugin]\nname = "a"\n[plugin]\nversion = "1.0.0"', "twice|declared|already"),
    ("no [plugin]", "toml", 'name = "a"\nversion = "1.0.0"', r"\[plugin\]"),
    ("unclosed", "toml", '[plugin\nname = "a"', "TOML|expected"),
    ("bare word", "toml", "[plugin]\nname = a", "TOML|value|invalid"),
    ("nested deeply", "toml", "x = " + deep("[", "]", 2000), "nested|deep|recursion|TOML"),
    ("dotted deeply", "toml", ".".join(["a"] * 2000) + " = 1", r"nested|deep|\[plugin\]"),
    (
        "nan limit",
        "toml",
        '[plugin]\nname = "a"\nversion = "1.0.0"\n[resources]\nmax_memory_mb = nan',
        "number|finite|nan",
    ),
    ("given in both places", "toml", 'tags = ["a"]\n[plugin]\nname = "a"\nversion = "1.0.0"\ntags = ["b"]', "twice"),
    ("date as version", "toml", '[plugin]\nname = "a"\nversion = 2026-01-01', "version"),
    ("empty", "toml", "", r"\[plugin\]"),
]

#: One key wrong in an otherwise good manifest: the value, and words of the error. In every format that can say it.
WRONG: list[tuple[str, Any, str]] = [
    ("name", "", "empty"),
    ("name", "   ", "text|slug"),
    ("name", "☃", "slug"),
    ("name", "x" * 200, "slug"),
    ("name", 5, "quotes"),
    ("name", ["a"], "text"),
    ("version", "v1", "semantic version"),
    ("version", "1.0.0" + "0" * 100_000 + "!", "semantic version"),
    ("module", "../../etc/passwd", "module path"),
    ("module", "handler.py", "module path"),
    ("main", "../main.py", "Python file"),
    ("main", "/etc/passwd", "Python file"),
    ("class", "My Class", "name of a class"),
    ("entry_point", "run()", "name of a function"),
    ("intent", "two words", "intent"),
    ("intent", [], "at least one"),
    ("intent", [1], "text"),
    ("required_roles", "admin", "list"),
    ("trusted_ui", "yes", "true or false"),
    ("permissions", ["everything"], "not a permission"),
    ("permissions", ["netwrok_access"], "network_access"),
    ("permissions", {"system_access": ["root"]}, "not a permission"),
    ("permissions", 7, "table"),
    ("resources", {"memory_mb": -1}, "more than 0"),
    ("resources", {"memory_mb": "much"}, "number"),
    ("resources", {"file_access": ["/etc"]}, "below"),
    ("resources", {"file_access": ["../../x"]}, "below"),
    ("sandbox", "off", "true, false"),
    ("sandbox", {"memory": "lots"}, "amount of memory"),
    ("commands", [{"name": "go"}], "/"),
    ("commands", [{"name": "/go"}, {"name": "/go"}], "twice"),
    ("commands", ["/go"], "table"),
    ("commands", {"name": "/go"}, "list"),
    ("hooks", ["message"], "on_"),
    ("hooks", [["on_message"]], "text"),
    ("stages", {"on_message": "first"}, "one of"),
    ("events", {"emits": ["workflow_started"]}, "only the host"),
    ("events", {"emits": ["other-plugin.x"]}, "prefix"),
    ("events", {"emits": ["Not A Type"]}, "event type"),
    ("workflow_slug", "Über", "workflow slug"),
    ("homepage", "javascript:alert(1)", "http"),
    ("email", "nobody", "e-mail"),
    ("plugin_api_version", "9.9", "supported: 1.0, 1.1"),
    ("type", "virus", "one of"),
    ("category", "../x", "slug"),
    ("config_schema", {"key": {"type": "strin"}}, "string"),
    ("config_schema", {"key": {"type": "integer", "default": "x"}}, "integer"),
    ("config_schema", [1], "table"),
    ("input_schema", {"type": "array"}, "object"),
    ("plugin_dependencies", [{"version": "1"}], "name is required"),
    ("plugin_dependencies", [{"name": "a", "version": "soon"}], "range"),
    ("plugin_dependencies", "a", "list"),
    ("capabilities", [{"name": "Do It"}], "word"),
    ("monitoring", {"log_level": "LOUD"}, "one of"),
    ("marketplace", {"screenshots": "a.png"}, "list"),
    ("compatibility", [1], "table"),
    ("tags", [None], "text"),
]


def quoted(text: str) -> str:
    """A string of YAML and TOML alike; JSON's pairs of surrogates mean nothing in them."""
    text.encode()
    return '"' + "".join(c if " " <= c <= "~" and c not in '"\\' else f"\\U{ord(c):08x}" for c in text) + '"'


def flow(value: Any, between: str) -> str:
    """A value on one line; `between` parts key and value."""
    match value:
        case None if between == ": ":
            return "null"
        case bool():
            return str(value).lower()
        case str():
            return quoted(value)
        case int() | float():
            return repr(value)
        case list():
            return f"[{', '.join(flow(item, between) for item in value)}]"
        case dict():
            pairs = (f"{quoted(key)}{between}{flow(item, between)}" for key, item in value.items())
            return f"{{{', '.join(pairs)}}}"
    raise ValueError(f"TOML has no {value!r}")


def toml(body: dict[str, Any]) -> str:
    return "[plugin]\n" + "\n".join(f"{quoted(key)} = {flow(value, ' = ')}" for key, value in body.items())


WRITERS: dict[Format, Callable[[dict[str, Any]], str]] = {
    "json": json.dumps,
    "yaml": lambda body: flow(body, ": "),
    "toml": toml,
}


def sound(problems: list[Problem], file: str) -> list[str]:
    """Errors as people read them."""
    assert problems
    for problem in problems:
        assert problem.file == file
        assert problem.line is None or problem.line >= 1
        assert len(problem.message) < 2000, "an error is for people to read"
    return [str(problem) for problem in problems]


def read(text: str | bytes, format: Format) -> PluginManifest | list[str]:
    """The manifest, or its errors. Whatever else happens is a failure of the test."""
    file = f"/plugins/some/{FILES[format]}"
    began = time.thread_time()
    try:
        found = parse_manifest(text, file, format, "/plugins/some")
    except InvalidManifest as error:
        return sound(error.problems, file)
    finally:
        assert time.thread_time() - began < LONGEST
    json.dumps(found.model_dump(mode="json"))
    return found


@pytest.fixture(autouse=True)
def nothing_runs(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No manifest may start anything, import anything by name, or open a file beside itself for writing."""
    for name in ("system", "popen", "fork", "execv", "posix_spawn"):
        monkeypatch.setattr(os, name, _never)
    modules = set(sys.modules)
    yield
    assert not {name for name in set(sys.modules) - modules if name.startswith("eventcore._loaded")}


def _never(*args: Any, **more: Any) -> None:
    raise AssertionError(f"something was started: {args}")


@pytest.mark.parametrize(("what", "format", "text", "words"), CORPUS, ids=[f"{c[1]}: {c[0]}" for c in CORPUS])
def test_the_corpus(what: str, format: Format, text: str | bytes, words: str | None) -> None:
    found = read(text, format)
    if words is None:
        assert isinstance(found, PluginManifest)
    elif words:
        assert not isinstance(found, PluginManifest), "this should have been refused"
        assert re.search(words, "\n".join(found)), found


#: TOML has no null.
SAYABLE = [(*case, dialect) for case in WRONG for dialect in FILES if not (case[1] == [None] and dialect == "toml")]


@pytest.mark.parametrize(
    ("key", "value", "words", "format"), SAYABLE, ids=[f"{c[3]}: {c[0]}={str(c[1])[:20]!r}" for c in SAYABLE]
)
def test_one_wrong_key(key: str, value: Any, words: str, format: Format) -> None:
    found = read(WRITERS[format]({**GOOD, key: value}), format)
    assert not isinstance(found, PluginManifest), f"{key} = {value!r} should have been refused"
    problems = [problem for problem in found if key in problem]
    assert problems, found
    assert any(re.search(words, problem) for problem in problems), problems


def test_one_bad_plugin_never_hides_another(tmp_path: Path) -> None:
    """All of the corpus in one folder, and good ones between."""
    for number, (_, dialect, text, _) in enumerate(CORPUS):
        folder = tmp_path / f"wild-{number:03d}"
        folder.mkdir()
        (folder / FILES[dialect]).write_bytes(text if isinstance(text, bytes) else text.encode())
        good = tmp_path / f"good-{number:03d}"
        good.mkdir()
        (good / "plugin_manifest.json").write_text(json.dumps({**GOOD, "name": good.name}))
    (tmp_path / "fifo").mkdir()
    os.mkfifo(tmp_path / "fifo/plugin.yaml")
    (tmp_path / "loop").mkdir()
    (tmp_path / "loop/plugin.toml").symlink_to("plugin.toml")
    (tmp_path / "folder/plugin.yaml").mkdir(parents=True)
    registry = PluginRegistry()
    for found in find_plugins([tmp_path]):
        registry.discover(found.folder, found.file, found.category, "home", found.problem)
    good_ones = [record for record in registry if record.slug.startswith("good-")]
    assert len(good_ones) == len(CORPUS)
    assert {record.state for record in good_ones} == {"discovered"}
    assert sum(record.state == "failed" for record in registry) >= 40


# -- generated ---------------------------------------------------------------------------------------------------------

KEYS = sorted({key for vocabulary in VOCABULARY.values() for key in vocabulary})
WORDS = st.one_of(
    st.sampled_from(
        [*KEYS, "on_message", "network_access", "docker", "../x", "/etc/passwd", "1.0.0", "<b>", "{{ 7*7 }}"]
    ),
    st.text(max_size=20),
)
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**53), 2**53), st.floats(allow_nan=False, allow_infinity=False), WORDS
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(WORDS, inner, max_size=4), max_leaves=12
)
MANIFESTS = st.dictionaries(st.sampled_from(KEYS) | WORDS, VALUES, max_size=8)
quick = settings(
    max_examples=80,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@quick
@given(body=MANIFESTS, format=st.sampled_from([*FILES]))
def test_any_values_give_a_manifest_or_errors(body: dict[str, Any], format: Format) -> None:
    whole = {**GOOD, **body}
    try:
        text = WRITERS[format](whole)
        text.encode()
    except (ValueError, UnicodeEncodeError):
        return
    read(text, format)


@quick
@given(text=st.binary(max_size=400) | st.text(max_size=400), format=st.sampled_from([*FILES]))
def test_any_text_gives_errors(text: str | bytes, format: Format) -> None:
    read(text if isinstance(text, bytes) else text.encode(errors="surrogatepass"), format)


@quick
@given(data=st.data(), format=st.sampled_from([*FILES]))
def test_a_good_manifest_with_some_bytes_changed(data: st.DataObject, format: Format) -> None:
    body = {**GOOD, "tags": ["a", "b"], "resources": {"memory_mb": 64}, "hooks": ["on_message"]}
    raw = bytearray(WRITERS[format](body).encode())
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(raw) - 1))
        raw[place : place + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
        if not raw:
            return
    read(bytes(raw), format)


@quick
@given(body=st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=6))
def test_dialects_agree_on_values(body: dict[str, Any]) -> None:
    """What is wrong in one format is wrong in the others: the rules are one."""
    body = {**GOOD, **{key: value for key, value in body.items() if key not in ("dependencies", "main", "license")}}
    verdicts = {}
    for dialect in FILES:
        try:
            text = WRITERS[dialect](body)
            text.encode()
        except (ValueError, UnicodeEncodeError):
            return
        verdicts[dialect] = isinstance(read(text, dialect), PluginManifest)
    assert len(set(verdicts.values())) == 1, verdicts


@pytest.mark.parametrize(
    "code",
    [
        "x = " + "(" * 10_000,
        "a = [" * 500 + "]" * 500,
        "x = '" + "\\" * 99_999,
        "\x00",
        "def f(:\n",
        "-" * 100_000 + "1",
    ],
    ids=["parentheses", "lists", "backslashes", "NUL", "syntax", "minuses"],
)
def test_entry_files_are_looked_through_without_harm(code: str, tmp_path: Path) -> None:
    (tmp_path / "plugin_manifest.json").write_text(json.dumps(GOOD))
    (tmp_path / "handler.py").write_text(code)
    manifest = parse_manifest(json.dumps(GOOD), f"{tmp_path}/plugin_manifest.json", "json", str(tmp_path))
    began = time.thread_time()
    problems = scan_entry(manifest)
    assert time.thread_time() - began < LONGEST
    assert all(len(str(problem)) < 2000 for problem in problems)
