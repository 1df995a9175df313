"""The worker's own code, which shares a process with the plugin and so may be changed by it at will."""

import builtins
import gc
import json
import os
import sys
import time
from contextlib import suppress


def patch_the_parser(planted):
    """Replaces what its own worker reads and writes frames with, and answers in another's name.

    Stopped by: the host, which trusts nothing of the worker.
    """
    runtime = sys.modules["eventcore.plugins.sandbox.worker.runtime"]
    runtime.encode = lambda value: b'NaN,"id":77'
    return "patched"


def take_the_channel(planted):
    """Finds the worker's channel in memory and answers by it.

    Stopped by: only ids in flight are answered.
    """
    from eventcore.plugins.sandbox.worker.channel import HostChannel

    (channel,) = (one for one in gc.get_objects() if isinstance(one, HostChannel))
    channel.reply(b'{"id":5,"ok":true,"result":"mine","stdout":"","stderr":""}')
    time.sleep(30)


def give_itself_permissions(planted):
    """Changes what `ctx` says of its permissions, and asks for what needs them.

    Stopped by: the host, which looks at its own records.
    """
    from eventcore.sdk import bound, ctx

    call = bound()
    call._context["permissions"] = ["admin_access"]
    call._context["tenant"] = "other"
    return ctx.emit("forged", {"by": "worker"})


def ask_the_host_directly(planted):
    """Asks for methods of the host by names of its choice.

    Stopped by: the host's table of methods.
    """
    from eventcore.sdk import bound

    found = []
    for method in ("__class__", "../admin", "plugins.enable", "log\0", "x" * 10_000):
        try:
            found.append(bound().ask(method, {}))
        except Exception:
            continue
    return found or None


def break_the_language(planted):
    """Replaces builtins that the worker uses.

    Stopped by: the process of its own.
    """
    for name in ("len", "isinstance", "type", "print"):
        setattr(builtins, name, None)
    json.dumps = None


def replace_the_sandbox(planted):
    """Tries to take the confinement back, by the code that made it.

    Stopped by: the kernel, which has no way back.
    """
    from eventcore.plugins.sandbox.linux import calls, landlock

    for undo in (lambda: calls.unshare(calls.CLONE_NEWUSER), lambda: landlock.restrict(7, [("/", landlock.WRITE)])):
        try:
            undo()
        except OSError:
            continue
    with open(planted["secret"]) as file:
        return file.read()


def loosen_the_filter(planted):
    """Loads a second filter that allows everything, and tries again.

    Stopped by: the kernel: the strictest filter counts.
    """
    from eventcore.plugins.sandbox.linux import bpf, calls, seccomp

    arch = calls.arch()
    with suppress(OSError):
        seccomp.install(bpf.assemble(arch.audit, [], x32=False, known=1 << 29, unknown=bpf.ALLOW, default=bpf.ALLOW))
    with open(planted["secret"]) as file:
        return file.read()


def widen_landlock(planted):
    """Adds a second Landlock domain that allows everything, and tries again.

    Stopped by: the kernel: domains only narrow.
    """
    from eventcore.plugins.sandbox.linux import landlock

    with suppress(OSError):
        landlock.restrict(landlock.abi(), [("/", landlock.WRITE)])
    with open(planted["secret"]) as file:
        return file.read()


class _Hostile(dict):
    def items(self):
        while True:
            pass

    __iter__ = items


def hostile_mapping(planted):
    """Returns a dictionary that never ends when it is read.

    Stopped by: the host's timer.
    """
    return _Hostile(a=1)


class _Silent(Exception):
    def __str__(self):
        os._exit(0)


def hostile_exception(planted):
    """Raises an error whose text ends the process.

    Stopped by: the supervisor, which tells its caller.
    """
    raise _Silent


async def leave_a_task(planted):
    """Leaves a task that answers the host's next call before the plugin has.

    Stopped by: ids in flight only; the process is its own alone.
    """
    import asyncio

    async def later():
        await asyncio.sleep(0.01)
        os.write(int(sys.argv[1]), b"\0\0\0\2{}")

    asyncio.get_running_loop().create_task(later())
