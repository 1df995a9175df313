"""The plan of one worker's confinement, and its steps in the order in which they have to be taken.

Runs in the zygote's children, before a line of the plugin; standard library only. Each step has a name, which a failure
is reported by: a worker that cannot take one ends, and its plugin is not loaded.
"""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from functools import lru_cache
from typing import Any

from eventcore.plugins.sandbox.linux import calls, landlock, seccomp
from eventcore.plugins.sandbox.linux import namespaces as spaces

_MIB = 1 << 20
_CLOSED_FROM = 5
#: Signals that wait, and timers, each of which keeps one in reserve: kernel memory that no other limit counts.
_SIGNALS = 1024
#: What a worker's pid is in its namespace: the keeper is the first process there, and the worker its first child.
INNER_PID = 2
#: What the kernel runs to start a dynamically linked program.
_LOADERS = ("/lib64/ld-linux-x86-64.so.2", "/lib/ld-linux-aarch64.so.1", "/lib/ld-musl-x86_64.so.1")


class StepFailed(Exception):
    """A step could not be taken; `args` are its name, the errno, and a sentence."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What one worker gets. Plain data, so that it can go to the zygote as JSON.

    Attributes:
        slug: the plugin's slug.
        namespaces: whether the worker lives in namespaces of its own, with a view of its own.
        uid: the user to become, or None to remain who we are.
        counted: the user whose threads ours count as, where we remain root: no limit binds root itself.
        keep: the variables to keep, or None for all of the few that there are.
        read, write: paths in the view, and what Landlock allows.
        own: paths of `read` whose owner is to appear as `uid`: else their modes would keep it from reading.
        fixed: those of `read` and `write` that were granted, and have no link in their paths.
        cwd: where to begin, if it is there; empty: the private folder.
        programs: paths that may be executed.
        ports: TCP ports that may be connected to.
        folder: the private folder outside of a view; the worker's HOME.
        memory: bytes of address space beyond what the zygote had; 0 for no limit.
        disk: bytes of the private folder; outside of a view, of each file.
        threads: threads, and processes where programs are allowed.
        files: open file descriptors.
        cpu: seconds of CPU time of the process; 0 for no limit.
        abi: the Landlock ABI to use.
        command: a program to become, with its arguments, in place of a worker.
        env: variables of that program, `NAME=value`, besides the few that every worker has.
    """

    slug: str
    namespaces: bool
    uid: int | None
    read: tuple[str, ...]
    folder: str
    abi: int
    write: tuple[str, ...] = ()
    own: tuple[str, ...] = ()
    fixed: tuple[str, ...] = ()
    cwd: str = ""
    programs: tuple[str, ...] = ()
    ports: tuple[int, ...] = ()
    memory: int = 0
    disk: int = 64 * _MIB
    threads: int = 64
    files: int = 256
    cpu: int = 0
    counted: int | None = None
    keep: tuple[str, ...] | None = None
    command: tuple[str, ...] = ()
    env: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def of(cls, found: dict[str, Any]) -> Plan:
        """From `as_dict`, after JSON."""
        given: dict[str, Any] = {one.name: found[one.name] for one in fields(cls)}
        lists = {name: tuple(value) for name, value in given.items() if isinstance(value, list)}
        return cls(**given | lists)

    @property
    def home(self) -> str:
        """The private folder, as the worker sees it."""
        return spaces.SCRATCH if self.namespaces else self.folder


def _step(name: str, action: Callable[[], None]) -> None:
    try:
        action()
    except (OSError, ValueError, KeyError) as error:
        raise StepFailed(name, getattr(error, "errno", None) or 0, str(error)) from error


# In the keeper: the first process of the worker's pid namespace


def leave(*, namespaces: bool, network: bool) -> None:
    """Leave the host's namespaces for our own, where there are to be any.

    Raises:
        StepFailed: one of them is refused.
    """
    if namespaces:
        if os.geteuid() != 0:
            _step("user", spaces.enter_user)
        _step("namespaces", lambda: spaces.leave_host(network=network))


def build(plan: Plan, root: str) -> None:
    """Change to a view of our own, where the plan has one.

    Raises:
        StepFailed: a mount is refused.
    """
    if plan.namespaces:
        read = (*plan.read, *plan.programs)
        _step("view", lambda: spaces.build_view(root, read, plan.write, plan.own, plan.disk, plan.uid, plan.fixed))


# In the worker itself


def confine(plan: Plan, memory: int, parent: int) -> None:
    """Take all steps. Afterwards this process can do what the plan allows, and nothing can give it more.

    Args:
        memory: this process's address space now, in bytes.
        parent: the keeper's pid; if it is gone already, so are we.

    Raises:
        StepFailed: a step could not be taken. The process must end.
    """
    calls.close_from(_CLOSED_FROM)
    _step("session", lambda: os.setsid())
    _step("limits", lambda: _limit(plan, memory))
    _step("user", lambda: _become(plan.uid, plan.counted))
    _step("capabilities", calls.drop_capabilities)
    _step("death", lambda: die_with(parent))
    _step("privileges", lambda: _no_new_privileges(plan))
    _enter_home(plan)
    _step("landlock", lambda: _landlock(plan))
    _step("seccomp", lambda: _seccomp(plan))


def _limit(plan: Plan, memory: int) -> None:
    def most(which: int, value: int) -> None:
        _, hard = resource.getrlimit(which)
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(which, (value, value))

    for nothing in (resource.RLIMIT_CORE, resource.RLIMIT_MEMLOCK, resource.RLIMIT_MSGQUEUE):
        most(nothing, 0)
    most(resource.RLIMIT_NOFILE, plan.files)
    most(resource.RLIMIT_FSIZE, plan.disk)
    most(resource.RLIMIT_NPROC, plan.threads)
    most(resource.RLIMIT_SIGPENDING, _SIGNALS)
    if plan.cpu:
        most(resource.RLIMIT_CPU, plan.cpu)
    if plan.memory:
        most(resource.RLIMIT_AS, memory + plan.memory)
        most(resource.RLIMIT_DATA, memory + plan.memory)


def _become(uid: int | None, counted: int | None) -> None:
    if uid is None:
        if counted is not None:
            os.setresuid(counted, -1, -1)
        return
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)


def die_with(parent: int) -> None:
    """End when the parent ends. A change of user or of its namespace undoes that, so it comes after both."""
    calls.prctl(calls.PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _no_new_privileges(plan: Plan) -> None:
    calls.prctl(calls.PR_SET_NO_NEW_PRIVS, 1)
    # Where the host is not root it sees what files we have open only so; it looks where folders are not bounded by the
    # kernel. Other workers are kept from us by the filter and by Landlock all the same.
    seen = plan.counted is None and bool(plan.write or not plan.namespaces)
    calls.prctl(calls.PR_SET_DUMPABLE, 1 if seen else 0)


def _enter_home(plan: Plan) -> None:
    os.environ.pop("MALLOC_ARENA_MAX", None)  # read long ago
    os.environ["HOME"] = os.environ["TMPDIR"] = plan.home
    if plan.keep is not None:
        for name in os.environ.keys() - {*plan.keep}:
            del os.environ[name]
    os.chdir(plan.cwd if plan.cwd and os.path.isdir(plan.cwd) else plan.home)


def _landlock(plan: Plan) -> None:
    if plan.abi < 2:
        raise OSError(95, f"Landlock ABI {plan.abi}; 2 is needed")
    if plan.ports and plan.abi < 4:
        raise OSError(95, f"Landlock ABI {plan.abi}; rules for TCP ports need 4")
    paths = [(path, landlock.READ) for path in plan.read]
    executable = (*plan.programs, *_LOADERS) if plan.programs else ()
    paths += [(path, landlock.READ | landlock.Access.EXECUTE) for path in executable]
    paths += [(path, landlock.READ | landlock.Access.WRITE_FILE) for path in spaces.DEVICES]
    paths += [(path, landlock.WRITE) for path in (*plan.write, plan.home)]
    landlock.restrict(plan.abi, paths, plan.ports, plan.fixed)


def _seccomp(plan: Plan) -> None:
    seccomp.install(filter_of(plan, os.getpid()))


def filter_of(plan: Plan, pid: int) -> bytes:
    """The filter of a worker that will see itself as `pid`. Made once for all workers alike: it takes a millisecond."""
    allowed = seccomp.Allowed(
        pid,
        programs=bool(plan.programs),
        tcp=bool(plan.ports),
        # Then there is no file within reach that belongs to us and was not made by us or granted.
        metadata=plan.namespaces or plan.uid is not None,
        truncate=plan.abi >= 3,
        alone=plan.namespaces,
    )
    return _filter(allowed)


@lru_cache(maxsize=64)
def _filter(allowed: seccomp.Allowed) -> bytes:
    return seccomp.program(calls.arch(), allowed)
