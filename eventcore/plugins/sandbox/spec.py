"""What a worker is started with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from eventcore.kernel.context import DEFAULT_TENANT

#: Hooks that every host knows. `on_command` is not among them: it goes only to the plugin that declares the command.
STANDARD_HOOKS = frozenset({"on_message", "on_file_upload", "on_startup", "on_shutdown"})


@dataclass(frozen=True, slots=True)
class WorkerLimits:
    """Bounds of one worker.

    Attributes:
        load: seconds that importing and `initialize` may take.
        cpu: CPU seconds of one call, and of those that run beside it; 0 for no limit.
        calls: calls in the worker or waiting for it; one more is refused.
        requests_per_second: how many requests its code may make of the host. What comes faster waits; what does not
            wait for its answers runs into the cap of `frames.MAX_REQUESTS` in flight, and the worker is killed.
        raw_output: bytes that the process may write past its captured streams before it is killed.
    """

    load: float = 30.0
    cpu: float = 0.0
    calls: int = 1024
    requests_per_second: float = 5000.0
    raw_output: int = 16 * 1024 * 1024


#: The weight of a container's CPU time that is neither more nor less than others'.
EVEN_SHARES = 1024.0


@dataclass(frozen=True, slots=True)
class ContainerWish:
    """That a worker runs in a container, and in which; it can tighten the container, never loosen it.

    Attributes:
        image: its image; empty: the settings' one.
        dockerfile: whether the plugin's folder has a Dockerfile, from which the image is built.
        network: the container's network, if the operator gives it one.
        user: who it runs as, if that is not root.
        working_dir: where its code begins, if it was granted no folder of data.
        env: the only variables that it keeps, or None for the usual ones.
        cpu_shares: weight against other containers.
    """

    image: str = ""
    dockerfile: bool = False
    network: str = ""
    user: str = ""
    working_dir: str = ""
    env: tuple[str, ...] | None = None
    cpu_shares: float = EVEN_SHARES


@dataclass(frozen=True, slots=True)
class Allowance:
    """What a worker may use beyond its own code, the runtime, and a private folder. It begins with nothing.

    Attributes:
        read: files and folders that it may read; with no link in their paths.
        write: folders that it may change as well; the same.
        system: files and folders of the system that it may read beside the runtime.
        cwd: where its code begins; empty: its private folder.
        programs: programs that it may run; needs a pid namespace.
        ports: TCP ports that it may connect to; needs Landlock ABI 4.
        memory_mb: mebibytes that it may take beyond the empty worker; 0 for no limit.
        cpu_percent: of one core, on the average of some seconds; 0 for no limit.
        disk_mb: mebibytes of its private folder, and of each file anywhere.
        data_mb: mebibytes of each folder that it may change; 0 for no limit.
        threads: threads, and processes if it has programs.
        isolation: `worker` keeps a warm process for all calls; `call` takes a fresh one for each.
        full: refuse to run where namespaces are not to be had, instead of running without.
        env: the only variables that it keeps, or None for the usual ones.
        container: run in a container, and in which; None: in a process.
    """

    read: tuple[str, ...] = ()
    write: tuple[str, ...] = ()
    system: tuple[str, ...] = ()
    cwd: str = ""
    programs: tuple[str, ...] = ()
    ports: tuple[int, ...] = ()
    memory_mb: float = 1024.0
    cpu_percent: float = 0.0
    disk_mb: float = 64.0
    data_mb: float = 1024.0
    threads: int = 64
    isolation: Literal["worker", "call"] = "worker"
    full: bool = False
    env: tuple[str, ...] | None = None
    container: ContainerWish | None = None


@dataclass(frozen=True, slots=True)
class WorkerSpec:
    """Whose code to run, and how.

    Attributes:
        slug: the plugin's slug.
        dir: the plugin's folder.
        module: its module file, relative to `dir`.
        entry_point: the function that answers `run`, if there is no class.
        class_name: the class to make, with `config`; its `execute` answers `run`.
        config: the plugin's settings, JSON.
        tenant: whose worker it is.
        hooks: names of functions that are hook handlers; every other `on_<event>` subscribes to an event.
        paths: folders to import packages from, behind the standard library; None: the host's site-packages.
        python: the interpreter, such as that of the plugin's own environment; None: the host's.
        allow: what it may use.
        inline: run it in the host's own process, unconfined: the operator trusts it, and it asks for that.
        home: the host's own folder: a try to read it is told, where the process is confined; empty: there is none.
        version: changes with the content of the plugin's code, so that a supervisor notices.
    """

    slug: str
    dir: Path
    module: str = "handler.py"
    entry_point: str = "run"
    class_name: str | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    tenant: str = DEFAULT_TENANT
    hooks: frozenset[str] = STANDARD_HOOKS
    paths: tuple[str, ...] | None = None
    python: str | None = None
    allow: Allowance = Allowance()
    inline: bool = False
    home: str = ""
    version: str = ""
    limits: WorkerLimits = WorkerLimits()
