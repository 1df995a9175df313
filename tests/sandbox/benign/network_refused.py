"""Wants to fetch something, and goes on without."""

import socket
import urllib.error
import urllib.request

EXPECTED = {"fetched": "offline", "looked_up": "offline"}


def run(params):
    try:
        with urllib.request.urlopen("http://127.0.0.1:9/", timeout=1) as answer:
            fetched = answer.status
    except urllib.error.URLError:
        fetched = "offline"
    try:
        socket.create_connection(("127.0.0.1", 9), 1).close()
        looked_up = "online"
    except OSError:
        looked_up = "offline"
    return {"fetched": fetched, "looked_up": looked_up}
