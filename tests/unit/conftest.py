"""What the tests of workers share."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator

import pytest
from hypothesis import HealthCheck, settings

from eventcore.plugins.sandbox.confined import Sandbox
from eventcore.plugins.sandbox.launch import Launcher, spawn

# How quickly examples come tells of the machine, not of the code: one that stands still for a moment fails no test.
settings.register_profile("unhurried", settings(deadline=None, suppress_health_check=[HealthCheck.too_slow]))
settings.load_profile("unhurried")


@pytest.fixture(params=["sandbox", "bare"])
async def launcher(request: pytest.FixtureRequest, anyio_backend: str) -> AsyncIterator[Launcher]:
    """Workers in the sandbox, and workers without: what they do must be the same."""
    if request.param == "bare" or sys.platform != "linux":
        yield spawn
        return
    sandbox = Sandbox()
    yield sandbox
    sandbox.close()
