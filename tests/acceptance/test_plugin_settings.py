"""D8, I16, C35: settings of plugins, in layers, checked against the schema."""

from __future__ import annotations

import pytest

from eventcore import EventCore
from eventcore.kernel.context import CallContext
from tests.acceptance.conftest import QuickHome

CONFIG = "def run(params, ctx):\n    return dict(ctx.config)"
SCHEMA = {
    "max_tokens": {"type": "integer", "default": 512, "description": "Longest answer"},
    "model_path": {"type": "string"},
    "stream": {"type": "boolean", "default": False},
}


def settings(quick: QuickHome, slug: str = "my-ai-plugin") -> dict[str, tuple[object, str]]:
    found = quick.json("plugins", "config", slug)["settings"]
    return {one["key"]: (one["value"], one["source"]) for one in found}


@pytest.mark.req("D8")
def test_layers_go_before_each_other_and_are_checked(quick: QuickHome, monkeypatch: pytest.MonkeyPatch) -> None:
    quick.plugin("my-ai-plugin", CONFIG, config_schema=SCHEMA)
    quick.run("plugins", "enable", "my-ai-plugin")
    assert settings(quick)["max_tokens"] == (512, "default")
    quick.write("plugins/my-ai-plugin/config.yaml", "max_tokens: 1024\nmodel_path: a.onnx\n")
    assert settings(quick)["max_tokens"] == (1024, "config.yaml")
    quick.settings("[plugins.settings.my-ai-plugin]\nmax_tokens = 2048\n")
    assert settings(quick)["max_tokens"] == (2048, "eventcore.toml")

    assert quick.run("plugins", "config", "my-ai-plugin", "max_tokens", "4096").returncode == 0
    # Every command is a process of its own: this is over a restart.
    assert settings(quick)["max_tokens"] == (4096, "set")
    assert quick.json("run", "my-ai-plugin")["result"] == {"max_tokens": 4096, "model_path": "a.onnx", "stream": False}
    wrong = quick.run("plugins", "config", "my-ai-plugin", "max_tokens", "abc")
    assert wrong.returncode == 2
    assert "integer" in wrong.stderr
    assert settings(quick)["max_tokens"] == (4096, "set")

    monkeypatch.setenv("EVENTCORE_PLUGIN_MY_AI_PLUGIN__MAX_TOKENS", "8192")
    assert settings(quick)["max_tokens"] == (8192, "EVENTCORE_PLUGIN_MY_AI_PLUGIN__MAX_TOKENS")
    assert quick.json("run", "my-ai-plugin")["result"]["max_tokens"] == 8192
    monkeypatch.setenv("EVENTCORE_PLUGIN_MY_AI_PLUGIN__MAX_TOKENS", "many")
    refused = quick.run("run", "my-ai-plugin")
    assert refused.returncode != 0
    monkeypatch.delenv("EVENTCORE_PLUGIN_MY_AI_PLUGIN__MAX_TOKENS")

    assert quick.run("plugins", "config", "my-ai-plugin", "max_tokens", "--unset").returncode == 0
    assert settings(quick)["max_tokens"] == (2048, "eventcore.toml")


@pytest.mark.req("I16")
def test_the_command_sets_and_shows(quick: QuickHome) -> None:
    quick.plugin("my-ai-plugin", CONFIG, config_schema=SCHEMA)
    assert quick.run("plugins", "config", "my-ai-plugin", "model_path", "/path/to/model.onnx").returncode == 0
    shown = quick.run("plugins", "config", "my-ai-plugin", "model_path").stdout
    assert "/path/to/model.onnx" in shown
    assert "set" in shown.split()
    unknown = quick.run("plugins", "config", "my-ai-plugin", "max_token", "1")
    assert unknown.returncode == 2
    assert "did you mean 'max_tokens'" in unknown.stderr
    assert quick.run("plugins", "config", "my-ai-plugin", "max_token").returncode == 1
    assert quick.run("plugins", "config", "my-ai-plugin", "max_tokens", "1", "--unset").returncode == 2
    assert quick.run("plugins", "config", "my-ai-plugin", "stream", "--unset").returncode == 1


@pytest.mark.req("C35")
def test_a_missing_setting_keeps_it_disabled_and_says_which_command_sets_it(quick: QuickHome) -> None:
    quick.plugin("my-plugin", CONFIG, config_schema={"api_key": {"type": "string", "required": True}})
    refused = quick.run("plugins", "enable", "my-plugin")
    assert refused.returncode == 2
    assert "eventcore plugins config my-plugin api_key VALUE" in refused.stderr
    row = quick.json("plugins", "info", "my-plugin")
    assert row["state"] == "disabled"
    assert "api_key" in row["reason"]
    assert quick.run("plugins", "config", "my-plugin", "api_key", "k-1").returncode == 0
    assert quick.run("plugins", "enable", "my-plugin").returncode == 0
    assert quick.json("run", "my-plugin")["result"] == {"api_key": "k-1"}


def test_secrets_are_named_and_never_kept(quick: QuickHome, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVENTCORE_SECRET_DEMO_KEY", "s3cret-value")
    quick.plugin("shy", CONFIG, config_schema={"api_key": {"type": "string", "secret": True, "required": True}})
    plain = quick.run("plugins", "config", "shy", "api_key", "s3cret-value")
    assert plain.returncode == 2
    assert "secret" in plain.stderr
    assert quick.run("plugins", "config", "shy", "api_key", '{"secret": "demo-key"}').returncode == 0
    assert quick.run("plugins", "enable", "shy").returncode == 0
    assert quick.json("run", "shy")["result"] == {"api_key": "***"}
    assert settings(quick, "shy") == {"api_key": ("***", "set")}
    database = (quick.root / ".eventcore/eventcore.db").read_bytes()
    assert b"s3cret-value" not in database  # though the plugin returned it, which the recorded call holds masked


@pytest.mark.anyio
async def test_a_running_plugin_sees_the_change_at_its_next_call(quick: QuickHome) -> None:
    quick.plugin("my-ai-plugin", CONFIG, config_schema=SCHEMA)
    async with EventCore(quick.root) as core:
        record = await core.plugins.enable("my-ai-plugin")
        assert (await core.plugins.run("my-ai-plugin"))["max_tokens"] == 512
        await core.plugins.configuring.set(record, "max_tokens", 9, CallContext())
        assert (await core.plugins.run("my-ai-plugin"))["max_tokens"] == 9
        [entry] = await core.engine.store.audit(limit=1)
        assert (entry.action, entry.target, entry.raw_new) == ("plugin_configured", "my-ai-plugin.max_tokens", b"9")
