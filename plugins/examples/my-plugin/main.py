"""A plugin with a class, chat hooks, a command, settings, and a service that it asks over HTTP."""

from __future__ import annotations

import asyncio
import json
import logging
import time
import urllib.error
import urllib.request
from typing import Any

from eventcore.sdk import PluginError, bound, ctx

logger = logging.getLogger(__name__)

VERSION = "1.0.0"
MAX_TEXT = 10_000


class MyPlugin:
    """Asks the service.

    Args:
        config: `api_key` (required) and `endpoint`.

    Raises:
        ValueError: a setting is missing; says which.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        missing = [name for name in ("api_key", "endpoint") if not config.get(name)]
        if missing:
            raise ValueError(f"missing settings: {', '.join(missing)}")
        self.config = config
        self.api_key: str = config["api_key"]
        self.endpoint: str = config["endpoint"]
        self.began = time.monotonic()

    async def initialize(self) -> bool:
        """Called when the plugin is enabled; False would keep it from starting."""
        logger.info("asking %s", self.endpoint)
        return True

    async def execute(self, context: dict[str, Any]) -> dict[str, Any]:
        """Send `context["message"]` to the service."""
        try:
            result = await self.process(str(context.get("message", ""))[:MAX_TEXT])
        except (PluginError, OSError, ValueError) as error:
            logger.warning("the service could not be asked: %s", error)
            return {"success": False, "error": "service_failed", "message": str(error)}
        return {"success": True, "result": result, "message": "the service answered"}

    async def process(self, message: str) -> str:
        """What the service says to a text.

        Raises:
            PluginError, OSError, ValueError: it cannot be reached, or answers something else.
        """
        headers = {"Authorization": f"Bearer {self.api_key}"}
        body = await _post(self.endpoint, {"text": message}, headers)
        if not isinstance(body, dict):
            raise ValueError("the service did not answer with a JSON object")
        return str(body.get("result", ""))

    async def cleanup(self) -> None:
        """Called when the plugin is disabled or uninstalled. There is nothing to give back."""
        logger.info("no more questions")

    def health_check(self) -> dict[str, Any]:
        """Healthy as long as it runs."""
        return {"status": "healthy", "version": VERSION, "uptime": self.get_uptime()}

    def get_uptime(self) -> float:
        """Seconds since it was made."""
        return time.monotonic() - self.began


async def on_message(message: dict[str, Any]) -> dict[str, Any] | None:
    """Answer messages that mention the plugin; None for any other."""
    text = message.get("text", "")
    if isinstance(text, str) and text.lower().startswith("my-plugin:"):
        return {"text": "I answer to /myplugin", "type": "plugin_response"}
    return None


async def on_file_upload(file_info: dict[str, Any]) -> dict[str, Any] | None:
    """Files are none of its business."""
    return None


async def on_command(command: str, args: list[str]) -> dict[str, Any]:
    """`/myplugin TEXT`: what the service says to the text."""
    plugin = MyPlugin(dict(ctx.config))
    answer = await plugin.execute({"message": " ".join(args)})
    if not answer["success"]:
        return {"text": f"The service failed: {answer['message']}", "error": answer["error"]}
    return {"text": answer["result"], "result": answer["result"]}


async def _post(url: str, body: dict[str, Any], headers: dict[str, str]) -> Any:
    """The JSON that a POST is answered with. The host asks for us; outside a host, as in a unit test, we do."""
    if bound() is not None:
        return (await ctx.http.post(url, json=body, headers=headers)).raise_for_status().json()
    return await asyncio.to_thread(_post_directly, url, body, headers)


def _post_directly(url: str, body: dict[str, Any], headers: dict[str, str]) -> Any:
    if not url.startswith(("http://", "https://")):
        raise ValueError(f"{url[:100]!r} is no http address")
    sent = {"Content-Type": "application/json", **headers}
    request = urllib.request.Request(url, json.dumps(body).encode(), sent, method="POST")  # noqa: S310 - checked above
    with urllib.request.urlopen(request, timeout=10) as response:  # noqa: S310 - as above
        return json.load(response)
