"""Hook files: loading, failing, subscribing, warning."""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path
from typing import Any

import anyio
import pytest

from eventcore import EventCore
from eventcore.storage.memory import MemoryStore

pytestmark = pytest.mark.anyio


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(text))
    return path


async def test_hooks_and_events(core: EventCore, tmp_path: Path) -> None:
    path = write(
        tmp_path / "greet.py",
        """
        from eventcore.sdk import Deny, gate

        orders = []

        def on_message(message):
            return {"text": "hello " + message["user"]}

        @gate("on_message")
        async def no_spam(message):
            return Deny("spam") if "spam" in message["text"] else None

        async def on_order_created(event):
            orders.append(event.data)

        def helper():
            return 1
        """,
    )
    loaded = core.engine.hook_files.load("greet", path)
    assert (loaded.error, loaded.warnings, loaded.events) == (None, [], ["order_created"])
    assert loaded.handlers == ["greet.on_message", "greet.no_spam"]
    assert (await core.hooks.call("on_message", {"text": "hi", "user": "ada"})).replies == [{"text": "hello ada"}]
    assert (await core.hooks.call("on_message", {"text": "spam"})).by == "greet.no_spam"
    report = await core.bus.emit_and_wait("order_created", {"id": 1})
    assert [(one.subscription, one.status) for one in report] == [("greet.on_order_created", "ok")]
    scope = core.engine.hook_files._scope
    [module] = [found for name, found in sys.modules.items() if name.endswith(".greet") and scope in name]
    assert module.orders == [{"id": 1}]

    handler = core.hooks.registry.ordered("on_message")["reply"][0]
    assert handler.place == f"{path}:6"
    core.engine.hook_files.unload("greet")
    assert (await core.hooks.call("on_message", {"text": "spam"})).replies == []
    assert len(await core.bus.emit_and_wait("order_created", {})) == 0
    assert not [name for name in sys.modules if name.endswith(".greet") and scope in name]


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("def on_message(:\n", "SyntaxError"),
        ("import no_such_module_anywhere\n", "ModuleNotFoundError"),
        ("raise RuntimeError('boom')\n", "RuntimeError: boom"),
        ("import sys\nsys.exit(3)\n", "SystemExit"),
        ("x = 1\n", "no function named on_"),
        ("def on_message(m): ...\ndef on_Bad(e): ...\n", "on_Bad"),
        ("from eventcore.sdk import gate\n@gate\ndef nameless(m): ...\n", "PluginError"),
        ("\x00", "null bytes"),
    ],
)
async def test_a_broken_file_is_recorded_and_registers_nothing(
    core: EventCore, tmp_path: Path, text: str, error: str
) -> None:
    loaded = core.engine.hook_files.load("broken", write(tmp_path / "broken.py", text))
    assert error in (loaded.error or "")
    assert [one.slug for one in core.engine.hook_files] == ["broken"]
    assert core.hooks.registry.hooks() == []
    assert core.bus.subscriptions() == []
    assert not [name for name in sys.modules if name.endswith(".broken") and core.engine.hook_files._scope in name]
    mended = core.engine.hook_files.load("broken", write(tmp_path / "broken.py", "def on_message(m): return {}\n"))
    assert mended.error is None


async def test_a_file_that_is_not_there(core: EventCore, tmp_path: Path) -> None:
    assert core.engine.hook_files.load("gone", tmp_path / "gone.py").error


async def test_a_likely_slip_is_a_warning(core: EventCore, tmp_path: Path) -> None:
    path = write(tmp_path / "slip.py", "\n\ndef on_mesage(message): ...\n\ndef on_workflow_startd(event): ...\n")
    loaded = core.engine.hook_files.load("slip", path)
    assert loaded.error is None
    assert [str(one) for one in loaded.warnings] == [
        f"{path}:3 warning: on_mesage: did you mean 'on_message'?",
        f"{path}:5 warning: on_workflow_startd: did you mean 'on_workflow_started'?",
    ]


async def test_a_folder_with_a_relative_import(core: EventCore, tmp_path: Path) -> None:
    write(tmp_path / "polite" / "words.py", "GREETING = 'good day'\n")
    path = write(
        tmp_path / "polite" / "__init__.py",
        "from .words import GREETING\n\ndef on_message(message):\n    return {'text': GREETING}\n",
    )
    before = [*sys.path]
    loaded = core.engine.hook_files.load("polite", path)
    assert loaded.error is None
    assert (await core.hooks.call("on_message", {"text": "hi"})).replies == [{"text": "good day"}]
    assert sys.path == before
    core.engine.hook_files.unload("polite")
    assert not [name for name in sys.modules if "polite" in name and core.engine.hook_files._scope in name]


async def test_what_a_file_imports_is_not_its_own(core: EventCore, tmp_path: Path) -> None:
    write(tmp_path / "kit" / "other.py", "def on_message(message):\n    return {'text': 'borrowed'}\n")
    path = write(
        tmp_path / "kit" / "__init__.py",
        "from .other import on_message as borrowed\nfrom .other import on_message\n\ndef on_startup(x): ...\n",
    )
    assert core.engine.hook_files.load("kit", path).handlers == ["kit.on_startup"]


async def test_the_policy_tier_fails_closed(core: EventCore, tmp_path: Path) -> None:
    text = "from eventcore.sdk import gate\n@gate\ndef on_message(m):\n    raise ValueError('bug')\n"
    core.engine.hook_files.load("policy", write(tmp_path / "policy.py", text), policy=True)
    assert (await core.hooks.call("on_message", {"text": "hi"})).denied


async def test_loading_again_replaces(core: EventCore, tmp_path: Path) -> None:
    for number in range(2):
        text = f"def on_message(m):\n    return {{'n': {number}}}\nasync def on_x(event): return {number}\n"
        core.engine.hook_files.load("one", write(tmp_path / f"one{number}.py", text))
    assert (await core.hooks.call("on_message", {"text": "hi"})).replies == [{"n": 1}]
    assert [one.value for one in await core.bus.emit_and_wait("x")] == [1]


async def test_two_engines_have_modules_of_their_own(tmp_path: Path) -> None:
    path = write(tmp_path / "count.py", "n = 0\ndef on_message(m):\n    global n\n    n += 1\n    return {'n': n}\n")
    async with EventCore() as one, EventCore() as two:
        for core in (one, two):
            core.engine.hook_files.load("count", path)
        replies: list[Any] = [(await core.hooks.call("on_message", {"text": "x"})).replies for core in (one, two, one)]
    assert replies == [[{"n": 1}], [{"n": 1}], [{"n": 2}]]


async def test_durable_events_miss_nothing_and_are_dead_letters_in_the_end(tmp_path: Path) -> None:
    path = write(
        tmp_path / "orders.py",
        """
        DURABLE = ["order_created"]

        def on_order_created(event):
            raise SystemError("no printer")
        """,
    )
    store = MemoryStore()
    async with EventCore(store=store) as core:
        assert core.engine.hook_files.load("orders", path).error is None
        await core.bus.emit("order_created", {"id": 1})
        await core.drain()
    path.write_text(
        'seen = []\nDURABLE = ["order_created"]\ndef on_order_created(event):\n    seen.append(event.data)\n'
    )
    async with EventCore(store=store) as core:
        await core.bus.emit("order_created", {"id": 2})
        core.engine.hook_files.load("orders", path)
        scope = core.engine.hook_files._scope
        [module] = [found for name, found in sys.modules.items() if name.endswith(".orders") and scope in name]
        with anyio.fail_after(30):
            while len(module.seen) < 2:
                await anyio.sleep(0.005)
        # The one that came while nobody was there, and the one whose retry was due after the restart.
        assert sorted(one["id"] for one in module.seen) == [1, 2]
        [place] = await core.bus.places.list()
        assert (place.subscription, place.state) == ("orders.on_order_created", "consuming")


@pytest.mark.parametrize(
    ("listed", "message"),
    [
        ('["order_gone"]', "there is no function on_order_gone"),
        ('"order_created"', "DURABLE is a list"),
        ("[1]", "DURABLE is a list"),
    ],
)
async def test_a_wrong_list_of_durable_events_is_named(
    core: EventCore, tmp_path: Path, listed: str, message: str
) -> None:
    path = write(tmp_path / "orders.py", f"DURABLE = {listed}\ndef on_order_created(event):\n    pass\n")
    loaded = core.engine.hook_files.load("orders", path)
    assert message in (loaded.error or "")
    assert loaded.events == []
