"""An image registry on this machine that holds one image: enough of the OCI distribution protocol to pull it."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
_CONFIG, _LAYER = "application/vnd.docker.container.image.v1+json", "application/vnd.docker.image.rootfs.diff.tar"


def _digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def _parts(saved: bytes) -> tuple[bytes, dict[str, bytes]]:
    """The manifest of a saved image (`docker save`), and its blobs by digest."""
    with tarfile.open(fileobj=io.BytesIO(saved)) as archive:

        def read(name: str) -> bytes:
            member = archive.getmember(name)
            if member.issym() or member.islnk():
                return read(member.linkname.removeprefix("../"))
            file = archive.extractfile(member)
            assert file is not None
            return file.read()

        [listed] = json.loads(read("manifest.json"))
        config, layers = read(listed["Config"]), [read(name) for name in listed["Layers"]]
    manifest = {
        "schemaVersion": 2,
        "mediaType": _MANIFEST,
        "config": {"mediaType": _CONFIG, "size": len(config), "digest": _digest(config)},
        "layers": [{"mediaType": _LAYER, "size": len(one), "digest": _digest(one)} for one in layers],
    }
    return json.dumps(manifest).encode(), {_digest(one): one for one in (config, *layers)}


@contextmanager
def registry(saved: bytes) -> Iterator[tuple[str, list[str]]]:
    """Serve a saved image; gives the registry's address, and the paths that are asked for."""
    manifest, blobs = _parts(saved)
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            last = self.path.rpartition("/")[2]
            data, kind = manifest, _MANIFEST
            if "/blobs/" in self.path:
                data, kind = blobs.get(last, b""), "application/octet-stream"
            self.send_response(200 if data else 404)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(data)))
            self.send_header("Docker-Content-Digest", _digest(data))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(data)

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, format: str, *args: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_address[1]}", asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)
