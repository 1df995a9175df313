"""The class by itself, against a stub of the service. `eventcore plugins test my-plugin` runs these."""

from __future__ import annotations

import pytest
from my_plugin.main import MyPlugin, on_file_upload, on_message


@pytest.fixture
def plugin(stub_endpoint):
    stub_endpoint.answer("/ask", {"result": "HELLO"})
    return MyPlugin({"api_key": "test_key", "endpoint": f"{stub_endpoint.url}/ask"})


@pytest.mark.asyncio
async def test_initialize(plugin):
    assert await plugin.initialize() is True


@pytest.mark.asyncio
async def test_execute(plugin, stub_endpoint):
    result = await plugin.execute({"message": "hello", "user": "testuser"})
    assert result["success"] is True
    assert result["result"] == "HELLO"
    (asked,) = stub_endpoint.asked
    assert (asked.json(), asked.headers["authorization"]) == ({"text": "hello"}, "Bearer test_key")


@pytest.mark.asyncio
async def test_a_service_that_fails(plugin, stub_endpoint):
    stub_endpoint.answer("/ask", {"error": "down"}, status=503)
    result = await plugin.execute({"message": "hello"})
    assert (result["success"], result["error"]) == (False, "service_failed")
    stub_endpoint.answer("/ask", ["not", "an", "object"])
    assert (await plugin.execute({"message": "hello"}))["success"] is False


@pytest.mark.asyncio
async def test_cleanup(plugin):
    await plugin.cleanup()
    assert plugin.health_check()["status"] == "healthy"
    assert plugin.get_uptime() >= 0


@pytest.mark.asyncio
async def test_only_its_own_messages_are_answered():
    assert (await on_message({"text": "my-plugin: are you there?"}))["type"] == "plugin_response"
    assert await on_message({"text": "good morning"}) is None
    assert await on_file_upload({"name": "a.txt"}) is None


def test_a_missing_key_is_named():
    with pytest.raises(ValueError, match="api_key"):
        MyPlugin({"endpoint": "http://127.0.0.1:1/"})
