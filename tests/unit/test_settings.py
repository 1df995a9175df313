"""`eventcore.toml`: defaults, the template, and what its errors say."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from eventcore.home.settings_file import default_text, read_settings, toml_value, write_default
from eventcore.kernel.errors import HomeError, InvalidSettings
from eventcore.kernel.settings import NamedTables, Settings, known_keys, reference


def read(tmp_path: Path, text: str | bytes) -> Settings:
    file = tmp_path / "eventcore.toml"
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    return read_settings(file)


def problems(tmp_path: Path, text: str | bytes) -> list[tuple[int | None, str, str]]:
    with pytest.raises(InvalidSettings) as caught:
        read(tmp_path, text)
    assert {problem.file for problem in caught.value.problems} == {str(tmp_path / "eventcore.toml")}
    return [(problem.line, problem.key, problem.message) for problem in caught.value.problems]


def test_an_empty_file_gives_the_defaults(tmp_path: Path) -> None:
    settings = read(tmp_path, "")
    assert settings == Settings.defaults()
    assert (settings.engine.tenant, settings.engine.drain_timeout, settings.plugins.timeout) == ("default", 60, 30)
    assert settings.store.url is None
    assert settings.hooks.auto
    assert settings.workflows.auto


def test_the_template_reads_back_as_the_defaults(tmp_path: Path) -> None:
    assert write_default(tmp_path / "eventcore.toml")
    assert read_settings(tmp_path / "eventcore.toml") == Settings.defaults()


def test_the_template_names_every_key_and_its_comments_are_valid(tmp_path: Path) -> None:
    lines = default_text().splitlines()
    for info in reference():
        assert sum(line.lstrip("#").startswith(f"{info.key} = ") for line in lines) >= 1
    # A commented key is `#key = value`; a sentence is `# Sentence.`
    uncommented = "\n".join(line[1:] if line[:1] == "#" and line[1:2] != " " else line for line in lines)
    assert read(tmp_path, uncommented) != Settings.defaults()


def test_the_template_never_replaces_a_file(tmp_path: Path) -> None:
    file = tmp_path / "eventcore.toml"
    file.write_text("[engine]\ndrain_timeout = 1\n")
    assert not write_default(file)
    assert file.read_text() == "[engine]\ndrain_timeout = 1\n"


def test_every_setting_is_described() -> None:
    rows = list(reference())
    assert len({(row.section, row.key) for row in rows}) == len(rows) > 15
    assert all(row.description.endswith(".") for row in rows)
    of_their_own = {name for name, field in Settings.model_fields.items() if isinstance(field.default, NamedTables)}
    assert (
        {row.section for row in rows}
        == set(Settings.model_fields) - of_their_own
        == {*Settings.model_fields}
        - {
            "services",
            "apis",
        }
    )


def test_a_full_file(tmp_path: Path) -> None:
    settings = read(
        tmp_path,
        """
        [engine]
        drain_timeout = 5
        [store]
        url = "sqlite:///elsewhere.db"
        [plugins]
        enabled = ["HelloWorld", "hello-world"]
        grants = {hello_world = ["network_access", "network_access"]}
        [plugins.settings.hello-world]
        greeting = "Hi"
        [hooks]
        auto = false
        [workflows]
        disabled = ["triage_message"]
        [secrets]
        file = "secrets.toml"
        """,
    )
    assert settings.engine.drain_timeout == 5
    assert settings.plugins.enabled == ("hello-world",)
    assert settings.plugins.grants == {"hello-world": ("network_access",)}
    assert settings.plugins.settings == {"hello-world": {"greeting": "Hi"}}
    assert settings.workflows.disabled == ("triage_message",)
    assert not settings.hooks.auto


def test_settings_are_frozen() -> None:
    with pytest.raises(ValidationError):
        Settings.defaults().engine.tenant = "other"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("text", "line", "key", "words"),
    [
        ("[plugins]\n\nenabeld = []", 3, "plugins.enabeld", "no such setting; did you mean 'enabled'?"),
        ("[plugin]\nenabled = []", 1, "plugin", "no such table; did you mean 'plugins'?"),
        ("[engine]\ndrain_timeout = '60'", 2, "engine.drain_timeout", "should be a valid number"),
        ("[engine]\ndrain_timeout = -1", 2, "engine.drain_timeout", "should be greater than or equal to 0"),
        ("[hooks]\nauto = 'yes'", 2, "hooks.auto", "should be a valid boolean"),
        ("[hooks]\nenabled = 'greet'", 2, "hooks.enabled", "should be a list"),
        ("[plugins]\nenabled = ['a', '---']", 2, "plugins.enabled[1]", "gives no usable slug"),
        ("[workflows]\nenabled = ['Tri Age']", 2, "workflows.enabled[0]", "is not a workflow slug"),
        ("[plugins.grants]\na-b = []\na_b = []", 1, "plugins.grants", "'a-b' and 'a_b' are the same plugin"),
        ("engine = 3", 1, "engine", "should be a table"),
        ("[engine]\ntenant = ", 2, "", "is not TOML"),
        (b"# ok\n\xff", 2, "", "is not UTF-8"),
    ],
)
def test_an_error_says_where_and_what(tmp_path: Path, text: str | bytes, line: int, key: str, words: str) -> None:
    [(found_line, found_key, message)] = problems(tmp_path, text)
    assert (found_line, found_key) == (line, key)
    assert words in message


def test_all_errors_are_reported_at_once(tmp_path: Path) -> None:
    found = problems(tmp_path, "[engine]\ntenant = 1\n[hooks]\nauto = 2\nonly = []")
    assert sorted(key for _, key, _ in found) == ["engine.tenant", "hooks.auto", "hooks.only"]


def test_a_bad_store_url_is_not_repeated(tmp_path: Path) -> None:
    [(_, key, message)] = problems(tmp_path, "[store]\nurl = 'mysql://ada:hunter2@db/x'")
    assert key == "store.url"
    assert "hunter2" not in message
    assert "sqlite:///" in message


def test_a_missing_file_names_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(HomeError, match="eventcore init"):
        read_settings(tmp_path / "eventcore.toml")


def test_known_keys() -> None:
    assert "plugins" in known_keys(())
    assert "enabled" in known_keys(("hooks",))
    assert known_keys(("plugins", "settings")) == ()


@pytest.mark.parametrize(
    "value",
    ["a", 'quote " \\ \n \x00 \x7f \u2028', "snowman \u2603 \U0001f600", 3, 2.5, True, [1, ["x"]], {"a b": {"c": []}}],
)
def test_toml_values_read_back(value: Any) -> None:
    assert tomllib.loads(f"x = {toml_value(value)}")["x"] == value


def test_toml_refuses_what_it_cannot_write() -> None:
    for value in (None, float("nan"), object()):
        with pytest.raises(TypeError):
            toml_value(value)
