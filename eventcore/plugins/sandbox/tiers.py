"""Chooses where a worker runs: in a process, or in a container, and what happens where there is no container engine."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace

from eventcore.kernel.errors import SandboxUnavailable
from eventcore.plugins.sandbox.confined import Sandbox
from eventcore.plugins.sandbox.container.errors import EngineMissing
from eventcore.plugins.sandbox.container.launcher import Containers
from eventcore.plugins.sandbox.launch import Process
from eventcore.plugins.sandbox.machine import Machine
from eventcore.plugins.sandbox.spec import EVEN_SHARES, ContainerWish, WorkerSpec

_log = logging.getLogger(__name__)

#: Told once for each plugin that runs in a process although it should run in a container, with the reason.
Notice = Callable[[str, str], Awaitable[None]]


class Tiers:
    """The launcher of an engine.

    Args:
        fallback: whether a container plugin may run in a process where no engine answers.
        notice: records that one does.
    """

    def __init__(self, sandbox: Sandbox, containers: Containers, *, fallback: bool, notice: Notice) -> None:
        self.sandbox, self.containers = sandbox, containers
        self._fallback, self._notice = fallback, notice
        self._told: set[str] = set()

    async def __call__(self, spec: WorkerSpec) -> Process:
        """Start a worker.

        Raises:
            SandboxUnavailable: this machine cannot give the tier that the plugin needs.
        """
        wish = spec.allow.container
        if wish is None:
            return await self.sandbox(spec)
        try:
            process = await self.containers.start(spec, wish)
        except EngineMissing as error:
            return await self._fall_back(spec, wish, error)
        self._told.discard(spec.slug)
        return process

    async def machine(self) -> Machine:
        """What the process tier enforces here."""
        return await self.sandbox.machine()

    async def _fall_back(self, spec: WorkerSpec, wish: ContainerWish, error: EngineMissing) -> Process:
        lacks = needs_container(wish)
        if lacks or not self._fallback:
            why = f"and only a container gives it {', '.join(lacks)}" if lacks else "and the fallback is not allowed"
            hint = error.hint if lacks else f"{error.hint}; or set [containers] fallback = true"
            text = f"{spec.slug} is not run: {error.message}, {why}"
            raise SandboxUnavailable(text, kind="SandboxUnavailable", hint=hint, missing=lacks) from error
        # `full`: a process without namespaces would enforce less than the container.
        process = await self.sandbox(replace(spec, allow=replace(spec.allow, container=None, full=True)))
        if spec.slug not in self._told:
            self._told.add(spec.slug)
            _log.warning("%s runs in a process, not in a container: %s", spec.slug, error.message)
            await self._notice(spec.slug, error.message)
        return process


def needs_container(wish: ContainerWish) -> list[str]:
    """What of a manifest the process tier does not give."""
    return [
        *(["a Dockerfile"] if wish.dockerfile else []),
        *([f"the image {wish.image}"] if wish.image and not wish.dockerfile else []),
        *([f"the network {wish.network}"] if wish.network else []),
        *([f"the user {wish.user}"] if wish.user else []),
        *([f"CPU shares of {wish.cpu_shares:g}"] if wish.cpu_shares != EVEN_SHARES else []),
    ]
