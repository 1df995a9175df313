"""`ctx.chat`: what is said in the chat's channels."""

from __future__ import annotations

from typing import Any

from eventcore.sdk.binding import Answer, current


class ChatContext:
    """`ctx.chat`; needs `chat_access`."""

    def send(self, channel: str, text: str) -> Answer[dict[str, Any]]:
        """Say something in a channel (`#general`), as this plugin; committed with the success of the call.

        Args:
            channel: at most 256 characters.
            text: at most 65,536 characters.
        """
        return current().ask("chat.send", {"channel": channel, "text": text})

    def read(self, channel: str = "#general", limit: int = 50) -> Answer[list[dict[str, Any]]]:
        """The last messages of a channel, oldest first, at most `limit` (1 to 500).

        Each has `id`, `time` (RFC 3339), `user` (or the plugin that said it), `text`. Denied messages are not there.
        """
        return current().ask("chat.read", {"channel": channel, "limit": limit})
