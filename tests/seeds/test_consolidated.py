"""The second seed: one plugin system in place of two. Each test is one of its examples; text and data are ours."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from eventcore import EventCore, MemoryManager, PluginManager, PluginRouter
from eventcore.app.plugin_api import hosting
from eventcore.app.plugin_api.place import current
from eventcore.testing import HomeKit, seed_imports
from tests.acceptance.conftest import HomeFolder

pytestmark = pytest.mark.anyio


@pytest.fixture
def home(eventcore_home: HomeKit) -> HomeKit:
    eventcore_home.perform("plugins.enable", name="time-query")
    return eventcore_home


async def test_basic_execution(home: HomeKit) -> None:
    manager = PluginManager()
    result, stdout, stderr = await manager.run_plugin(
        name="time-query", params={"format": "iso"}, user_ctx={"user_id": "123", "roles": ["user"]}
    )
    assert result["success"] is True
    assert (stdout, stderr) == ("", "")


async def test_discovery(home: HomeKit) -> None:
    router = PluginRouter()
    intents = router.list_intents()
    assert "time_query" in intents
    plugin = router.get_plugin("time-query")
    assert plugin is not None
    assert plugin.dir_path.name == "time-query"


async def test_memory(home: HomeKit) -> None:
    user_ctx = {"user_id": "123", "roles": ["user"]}
    memory = MemoryManager(tenant_id="tenant123")
    memory.write(user_ctx, "weather query", {"location": "NYC", "temp": "72F"})
    memories = memory.read(user_ctx, "weather", limit=5)
    assert memories[0]["result"] == {"location": "NYC", "temp": "72F"}


@pytest.mark.parametrize(
    ("module", "names"),
    [
        ("ai_karen_engine.plugins.router", ["PluginRouter"]),
        ("ai_karen_engine.plugins.manager", ["PluginManager"]),
        ("src.extensions.plugins", ["PluginRouter", "PluginManager", "MemoryManager"]),
        ("src.extensions.plugins.core.router", ["PluginRouter"]),
        ("src.extensions.plugins.core.manager", ["PluginManager"]),
    ],
)
async def test_old_and_new_imports(module: str, names: list[str]) -> None:
    with seed_imports():
        loaded = importlib.import_module(module)
        for name in names:
            assert getattr(loaded, name).__module__.startswith("eventcore.")
    with pytest.raises(ImportError):
        importlib.import_module(module)


async def test_an_alias_leaves_packages_of_the_callers_own_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys
    from types import ModuleType

    mine = ModuleType("services")
    mine.own = 1  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "services", mine)
    with seed_imports():
        import services.plugin_service

        assert services is mine
        assert services.plugin_service.PluginService.__name__ == "PluginService"
    assert not hasattr(mine, "plugin_service")
    monkeypatch.setitem(sys.modules, "services.plugin_service", ModuleType("services.plugin_service"))
    with pytest.raises(ImportError, match="not ours"), seed_imports():
        pass
    assert "ai_karen_engine" not in sys.modules


@pytest.mark.parametrize("name", ["KARI_PLUGIN_DIR", "EVENTCORE_PLUGIN_DIR"])
async def test_the_folder_of_plugins_from_the_environment(
    eventcore_home: HomeKit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    elsewhere = HomeFolder(tmp_path / "elsewhere")
    elsewhere.plugin("far-away", "def run(params): return 'here'")
    monkeypatch.setenv(name, str(elsewhere.root / "plugins"))
    assert await PluginRouter().dispatch("far-away", {}) == "here"
    assert PluginRouter(elsewhere.root / "plugins").link.place.home is None


async def test_two_engines_of_one_program_share_nothing(eventcore_home: HomeKit, tmp_path: Path) -> None:
    other = HomeFolder(tmp_path / "other")
    other.plugin("only-there", "def run(params): return 1")
    router = PluginRouter(other.root / "plugins")
    assert "only-there" in router.list_intents()
    assert "only-there" not in PluginRouter().list_intents()
    assert hosting.running(current()) is not hosting.running(router.link.place)
    hosting.close(router.link.place)
    async with EventCore() as third:
        assert await third.plugins.run("hello_world", {}, roles=["user"])
