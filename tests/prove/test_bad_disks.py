"""Bad disks and bad databases, against whole engines: full, read-only, locked by somebody else, damaged.

Each is a clear error, nothing acknowledged is lost, and the engine goes on or stops cleanly. What the store alone does
is in `tests/unit/test_sqlite_store.py`.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import anyio
import pytest

import eventcore
from eventcore import EventCore
from eventcore.kernel.errors import EventCoreError, StoreError
from eventcore.storage.sqlite import SqliteStore
from tests.prove.surroundings import FAST, PROVE, PUBLISHERS, SEED, Work, opened, stored

pytestmark = [pytest.mark.anyio, pytest.mark.violent]

ROOT = Path(eventcore.__file__).parent.parent


@pytest.fixture(scope="module")
def anyio_backend() -> Any:
    """SQLite runs on asyncio; not in debug mode, which would keep a traceback for each task of a flood."""
    return "asyncio", {}


# -- a disk that is full ----------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(place)]
    if os.geteuid() != 0 or shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("needs root and the right to mount a tmpfs")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def fill(place: Path) -> Path:
    filler = place / "filler"
    with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
        while True:
            file.write(b"x" * 4096)
    return filler


async def test_a_full_disk_under_load(small_disk: Path) -> None:
    work = Work()
    async with opened(small_disk / "e.db") as core:
        work.listen(core)
        await work.publish(core, each=2)
        filler = fill(small_disk)
        await work.publish(core, first=1_000_000, pad="x" * 50_000, each=5)
        assert work.refused, "the disk was not full"
        assert all(isinstance(error, StoreError) and "disk is full" in str(error) for error in work.refused)
        assert all(error.hint for error in work.refused)
        filler.unlink()
        before = len(work.acknowledged)
        await work.publish(core, first=2_000_000, each=5)
        assert len(work.acknowledged) == before + PUBLISHERS * 5, "with room, work goes on"
        await work.check(core)
    async with opened(small_disk / "e.db") as core:
        await work.check(core)


async def test_an_engine_on_a_full_disk_stops_cleanly(small_disk: Path) -> None:
    work = Work()
    with anyio.fail_after(100), contextlib.suppress(StoreError):
        async with EventCore(store=SqliteStore(small_disk / "e.db")) as core:
            work.listen(core)
            await work.publish(core, each=2)
            await core.drain()
            filler = fill(small_disk)
            await work.publish(core, first=1_000_000, pad="x" * 50_000, each=2)
            core.engine.settings = hasty(core)
    assert work.refused
    filler.unlink()
    async with opened(small_disk / "e.db") as core:
        work.listen(core)
        await work.check(core)


def hasty(core: EventCore) -> Any:
    """Settings with which closing does not wait for what cannot end."""
    settings = core.engine.settings
    return settings.model_copy(update={"engine": settings.engine.model_copy(update={"drain_timeout": 0.2})})


# -- a database that belongs to somebody else -------------------------------------------------------------------------


HOLD = """
    import sqlite3, sys
    connection = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=30)
    for line in sys.stdin:
        connection.execute("BEGIN IMMEDIATE" if line == "take\\n" else "ROLLBACK")
        print("so", flush=True)
"""


async def test_a_database_locked_by_somebody_else_under_load(tmp_path: Path) -> None:
    """Emits are refused in words while the lock is held; then work goes on, and all that was taken in is there."""
    path, work = tmp_path / "e.db", Work()
    async with opened(path) as core:
        work.listen(core)
        command = [sys.executable, "-c", textwrap.dedent(HOLD), str(path)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:

            async def tell(word: str) -> None:
                assert holder.stdin is not None
                assert holder.stdout is not None
                holder.stdin.write(f"{word}\n")
                holder.stdin.flush()
                assert await anyio.to_thread.run_sync(holder.stdout.readline) == "so\n"

            async with anyio.create_task_group() as tasks:
                for turn in range(4):
                    tasks.start_soon(work.publish, core, turn * 1_000_000)
                    await tell("take")
                    # Those that began before it was taken may all be done; of these none can be.
                    await work.publish(core, turn * 1_000_000 + 500_000, each=1)
                    await anyio.sleep(0.2)
                    await tell("release")
            assert holder.stdin is not None
            holder.stdin.close()
        await work.publish(core, 9_000_000, each=2)
        await work.check(core)
    assert work.refused
    assert {type(error) for error in work.refused} == {StoreError}
    assert all("locked by another process" in str(error) and error.hint for error in work.refused)


OPEN = """
    import anyio, concurrent.futures.thread, os, sys
    from eventcore import EventCore
    from eventcore.kernel.errors import StoreError

    async def main(path):
        async with EventCore(store=f"sqlite:///{path}") as core:
            await core.bus.emit("job", {})

    anyio.run(main, sys.argv[2])  # loads every module while that is still allowed
    if os.geteuid() == 0:  # root may write anywhere
        os.setgroups([])
        os.setuid(65534)
    try:
        anyio.run(main, sys.argv[1])
    except StoreError as error:
        print(error)
"""


@pytest.mark.parametrize("what", ["file", "folder"])
async def test_an_engine_says_that_its_database_is_read_only(what: str, tmp_path: Path) -> None:
    place = Path(tempfile.mkdtemp())  # other users cannot reach pytest's own
    try:
        path = place / "e.db"
        async with opened(path) as core:
            kept = await core.bus.emit("job", {"n": 1})
        path.chmod(0o444 if what == "file" else 0o666)
        place.chmod(0o555)
        env = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
        command = [sys.executable, "-c", textwrap.dedent(OPEN), str(path), str(tmp_path / "warm.db")]
        done = await anyio.run_process(command, env=env, check=False)
        assert done.stderr.decode() == ""
        assert "is read-only" in done.stdout.decode() or "cannot be opened" in done.stdout.decode()
        assert "this user" in done.stdout.decode(), "says what to do"
        place.chmod(0o755)
        path.chmod(0o600)
        async with opened(path) as core:
            assert (await core.history.get(kept.id)).data == {"n": 1}
    finally:
        place.chmod(0o755)
        shutil.rmtree(place)


# -- a page that is damaged -------------------------------------------------------------------------------------------


async def filled(path: Path) -> None:
    async with opened(path) as core:
        await core.bus.emit_many([("job", {"n": number, "pad": "x" * 2000}) for number in range(300)])


def root_pages(path: Path) -> dict[str, int]:
    with closing(sqlite3.connect(path)) as connection:
        return dict(connection.execute("SELECT name, rootpage FROM sqlite_master WHERE rootpage > 1"))


def scribble(path: Path, page: int) -> None:
    with path.open("r+b") as file:
        file.seek((page - 1) * 4096)
        file.write(random.Random(page).randbytes(4096))


@pytest.mark.parametrize("table", ["events", "events_by_type", "events_by_id", "meta", "cursors"])
async def test_a_damaged_page_is_reported_and_the_engine_stops_cleanly(tmp_path: Path, table: str) -> None:
    """The damage is met when opening, writing or reading; wherever it is, it is called that, and nothing hangs."""
    path = tmp_path / "e.db"
    await filled(path)
    scribble(path, root_pages(path)[table])
    errors: list[StoreError] = []
    try:
        async with opened(path, 100) as core:
            core.engine.settings = hasty(core)
            core.bus.subscribe("job", print, name="s", durable=FAST)
            for call in (lambda: core.bus.emit("job", {}), lambda: stored(core, "job"), lambda: core.history.get("x")):
                try:
                    await call()
                except StoreError as error:
                    errors.append(error)
                except EventCoreError:
                    pass  # NotFound: this call did not meet the page
    except StoreError as error:
        errors.append(error)
    assert any("is damaged" in str(error) for error in errors), errors
    assert all(error.hint for error in errors)


@pytest.mark.skipif(not PROVE, reason="every page in turn: only in `make prove`")
async def test_every_page_in_turn(tmp_path: Path) -> None:
    """Whatever page is damaged, an engine says so, or does not meet it and then gives back what was stored."""
    whole = tmp_path / "whole.db"
    await filled(whole)
    pages = whole.stat().st_size // 4096
    met: list[StoreError] = []
    for page in random.Random(SEED).sample(range(2, pages + 1), 60):
        path = tmp_path / f"{page}.db"
        shutil.copy(whole, path)
        scribble(path, page)
        try:
            async with opened(path, 100) as core:
                core.engine.settings = hasty(core)
                await core.bus.emit("after", {})
                found = [event.data["n"] for event in await stored(core, "job")]
                assert found == list(range(300))
        except StoreError as error:
            met.append(error)
    assert len(met) > 10
    assert all(error.hint and "damaged" in str(error) for error in met), met
