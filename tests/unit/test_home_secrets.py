"""Sources of secrets."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from eventcore.home.secrets import ChainSecrets, EnvSecrets, FileSecrets
from eventcore.kernel.errors import HomeError, InvalidSettings
from eventcore.kernel.ports import Secrets


def secret_file(tmp_path: Path, name: str, text: str, mode: int = 0o600) -> Path:
    file = tmp_path / name
    file.write_text(text)
    file.chmod(mode)
    return file


@pytest.mark.parametrize("name", ["secrets.toml", "secrets.json"])
def test_a_file_of_secrets(tmp_path: Path, name: str) -> None:
    values = {"openai-key": "sk-1", "n8n": "x y"}
    text = json.dumps(values) if name.endswith("json") else "openai-key = 'sk-1'\nn8n = 'x y'\n"
    secrets: Secrets = FileSecrets(secret_file(tmp_path, name, text))
    assert {key: secrets.get(key) for key in (*values, "other")} == {**values, "other": None}
    assert FileSecrets(tmp_path / name).names() == ["n8n", "openai-key"]
    assert "sk-1" not in repr(secrets)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o666, 0o610])
def test_a_file_open_to_others_is_refused(tmp_path: Path, mode: int) -> None:
    with pytest.raises(HomeError, match="chmod 600"):
        FileSecrets(secret_file(tmp_path, "secrets.toml", "a = 'b'", mode))


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="gives a file to another user: needs root")
def test_a_file_of_another_user_is_refused(tmp_path: Path) -> None:
    file = secret_file(tmp_path, "secrets.toml", "a = 'b'")
    os.chown(file, 12345, 12345)
    with pytest.raises(HomeError, match="another user"):
        FileSecrets(file)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(HomeError, match="cannot read"):
        FileSecrets(tmp_path / "secrets.toml")


@pytest.mark.parametrize(
    ("name", "text", "line"),
    [
        ("s.toml", "a = 'ok'\nb = hunter2", 2),
        ("s.json", '{"a": "ok",\n"b": hunter2}', 2),
        ("s.toml", "[a]\nb = 'hunter2'", None),
        ("s.json", '["hunter2"]', None),
        ("s.json", '{"a": 42}', None),
    ],
)
def test_a_broken_file_shows_no_values(tmp_path: Path, name: str, text: str, line: int | None) -> None:
    with pytest.raises(InvalidSettings) as caught:
        FileSecrets(secret_file(tmp_path, name, text))
    [problem] = caught.value.problems
    assert problem.line == line
    assert "hunter2" not in str(caught.value)


def test_the_environment() -> None:
    secrets = EnvSecrets(environ={"EVENTCORE_SECRET_OPENAI_KEY": "sk-2", "OPENAI_KEY": "no"})
    assert secrets.get("openai-key") == "sk-2"
    assert secrets.get("OPENAI.key") == "sk-2"
    assert secrets.get("other") is None
    assert "sk-2" not in repr(secrets)


def test_the_environment_is_read_when_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    secrets = EnvSecrets("MY_")
    monkeypatch.setenv("MY_KEY", "later")
    assert secrets.get("key") == "later"


def test_a_chain_takes_the_first(tmp_path: Path) -> None:
    file = FileSecrets(secret_file(tmp_path, "s.toml", "a = 'file'\nb = 'file'\nc = ''"))
    chain = ChainSecrets(EnvSecrets("P_", {"P_A": "env", "P_C": ""}), file)
    assert (chain.get("a"), chain.get("b"), chain.get("c"), chain.get("d")) == ("env", "file", "", None)
    assert ChainSecrets().get("a") is None
