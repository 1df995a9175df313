"""A pytest plugin for those who build on EventCore, and for authors of plugins.

pytest loads it by itself where EventCore is installed. Loading it imports nothing of the engine; the fixtures do.

    def test_my_plugin(eventcore_home):                       # a temporary home; calls run in the real sandbox
        eventcore_home.install("plugins/my-plugin")
        assert eventcore_home.call("my_intent", {"text": "hi"}) == {"words": 1}
        assert [event["type"] for event in eventcore_home.events("my_*")] == ["my_event"]

    def test_my_function(plugin_ctx, load_plugin):            # its functions in this process
        handler = load_plugin("plugins/my-plugin")
        assert handler.run({"text": "hi"}) == {"words": 1}
        assert plugin_ctx.emitted == [("my_event", {"words": 1})]

    @pytest.mark.anyio
    async def test_my_intent(eventcore):                      # an engine in memory
        await eventcore.bus.emit("order_created", {"id": 1})
"""

from __future__ import annotations

import inspect
import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from eventcore.app import EventCore
    from eventcore.testing.clock import VirtualClock
    from eventcore.testing.endpoint import StubEndpoint
    from eventcore.testing.homes import HomeKit
    from eventcore.testing.plugin_contexts import RecordedContext


#: The folder of the plugin whose tests `eventcore plugins test` runs.
ENV_UNDER_TEST = "EVENTCORE_PLUGIN_UNDER_TEST"


def pytest_configure(config: pytest.Config) -> None:
    """Make the plugin under test importable, and know the mark `asyncio` where no other plugin does."""
    if not config.pluginmanager.hasplugin("asyncio"):
        config.addinivalue_line("markers", "asyncio: run this coroutine function on asyncio (by EventCore)")
    if folder := os.environ.get(ENV_UNDER_TEST):
        from eventcore.testing.plugin_contexts import plugin_package

        stack = ExitStack()
        stack.enter_context(plugin_package(folder))
        config.add_cleanup(stack.close)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run tests that are marked `asyncio`, where pytest-asyncio is not there to do it."""
    if pyfuncitem.config.pluginmanager.hasplugin("asyncio") or not pyfuncitem.get_closest_marker("asyncio"):
        return None
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    names = pyfuncitem._fixtureinfo.argnames
    import asyncio  # the plugin is loaded in every project that has us, and few tests come here

    asyncio.run(pyfuncitem.obj(**{name: pyfuncitem.funcargs[name] for name in names}))
    return True


@pytest.fixture
def eventcore_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HomeKit]:
    """A new home: a folder with `eventcore.toml`, `hooks/`, `plugins/` and `workflows/`, gone after the test.

    `EVENTCORE_HOME` names it, so that commands and the Python faces find it; other settings from the environment that
    would change where plugins come from are taken away.
    """
    from eventcore.testing.homes import make_home

    for name in ("EVENTCORE_PLUGIN_DIR", "KARI_PLUGIN_DIR"):
        monkeypatch.delenv(name, raising=False)
    home = make_home(tmp_path / "home")
    monkeypatch.setenv("EVENTCORE_HOME", str(home.root))
    yield home
    home.close()


@pytest.fixture
def virtual_clock(eventcore_home: HomeKit) -> VirtualClock:
    """The clock of `eventcore_home`, whose time stands still until `eventcore_home.advance(seconds)`."""
    return eventcore_home.virtual_time()


@pytest.fixture
def stub_endpoint() -> Iterator[StubEndpoint]:
    """An HTTP endpoint on the loopback interface: `answer(path, json)` tells it what to say; `asked` holds requests."""
    from eventcore.testing.endpoint import stub_endpoint

    with stub_endpoint() as stub:
        yield stub


@pytest.fixture
def plugin_ctx() -> Iterator[RecordedContext]:
    """`ctx` for a plugin's functions in this process: it notes what it is asked, and refuses nothing."""
    from eventcore.testing.plugin_contexts import plugin_context

    with plugin_context() as context:
        yield context


@pytest.fixture
def load_plugin() -> Iterator[Callable[..., ModuleType]]:
    """`load_plugin(folder, package=None)`: a plugin's code as a module of this process, until the test ends."""
    from eventcore.testing.plugin_contexts import plugin_code

    with ExitStack() as stack:
        yield lambda folder, package=None: stack.enter_context(plugin_code(folder, package))


@pytest.fixture
async def eventcore(anyio_backend: Any) -> AsyncIterator[EventCore]:
    """An open engine in memory, for tests under anyio's pytest plugin (`@pytest.mark.anyio`)."""
    from eventcore.app import EventCore

    async with EventCore() as core:
        yield core
