"""`ctx.http`: the host asks, and only what the grants reach. Real servers on the loopback, real workers."""

from __future__ import annotations

import gzip
import json
import threading
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from eventcore import EventCore
from eventcore.kernel.errors import InvalidInput, PluginFailed
from eventcore.plugins.outside.hosts import HostRule, canonical_host, forbidden
from eventcore.plugins.outside.rate import Bucket
from eventcore.plugins.outside.transport import AddressRefused, CheckedBackend
from tests.unit.outside import opened as opened_with
from tests.unit.outside import refusals

pytestmark = pytest.mark.anyio

#: Makes the requests it is told to make, and tells what came of each.
CODE = """
from eventcore.sdk import PluginError, ctx

async def run(params):
    found = []
    for method, url, more in params["requests"]:
        try:
            answer = await ctx.http.request(method, url, **more)
            found.append([answer.status, answer.text, dict(answer.headers), answer.url, answer.file])
        except PluginError as error:
            found.append([error.code, str(error)])
    return found
"""


opened = partial(opened_with, code=CODE)


class _Site(BaseHTTPRequestHandler):
    """Echoes; `/to?URL` redirects, `/big?N` sends so much, `/bomb` sends zeros packed by gzip, `/slow` says nothing."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path, _, query = self.path.partition("?")
        match path:
            case "/to":
                self._send(b"", 302, Location=query)
            case "/big":
                self._send(b"x" * int(query))
            case "/bomb":
                self._send(gzip.compress(bytes(50_000_000)), **{"Content-Encoding": "gzip"})
            case "/packed":
                self._send(gzip.compress(b"unpacked"), **{"Content-Encoding": "gzip"})
            case "/slow":
                self.server.stop.wait(60)  # type: ignore[attr-defined]
            case "/cookie":
                self._send(b"", **{"Set-Cookie": "a=b"})
            case _:
                sent = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
                said = {"method": self.command, "path": self.path, "headers": dict(self.headers), "body": sent}
                echoed = {"X-Echo": self.headers.get("Authorization", "-")}
                self._send(json.dumps(said).encode(), **echoed, **{"Content-Type": "application/json"})

    do_POST = do_GET  # noqa: N815 - the base class looks for this name

    def _send(self, body: bytes, status: int = 200, **headers: str) -> None:
        self.server.seen.append(self.path)  # type: ignore[attr-defined]
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None: ...


@pytest.fixture
def site() -> Iterator[ThreadingHTTPServer]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Site) as server:
        server.daemon_threads = True
        server.seen, server.stop = [], threading.Event()  # type: ignore[attr-defined]
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.stop.set()  # type: ignore[attr-defined]
        server.shutdown()


async def ask(core: EventCore, *requests: Any) -> list[Any]:
    asked = [[one[0], one[1], one[2] if len(one) > 2 else {}] for one in requests]
    found: list[Any] = await core.plugins.run("asker", {"requests": asked}, timeout=60)
    return found


def base(site: ThreadingHTTPServer) -> str:
    return f"http://127.0.0.1:{site.server_port}"


async def test_a_request_and_its_answer(tmp_path: Path, site: ThreadingHTTPServer) -> None:
    url = base(site)
    async with opened(tmp_path, {"local": [url.removeprefix("http://")]}) as core:
        got, posted, packed, cookie, after = await ask(
            core,
            ("GET", f"{url}/a?x=1", {"params": {"y": "ä b"}, "headers": {"X-Mine": "1"}}),
            ("POST", f"{url}/b", {"json": {"n": [1, None]}}),
            ("GET", f"{url}/packed"),
            ("GET", f"{url}/cookie"),
            ("GET", f"{url}/after"),
        )
        assert got[0] == 200
        said = json.loads(got[1])
        assert (said["path"], said["headers"]["X-Mine"]) == ("/a?x=1&y=%C3%A4+b", "1")
        assert got[2]["content-type"] == "application/json"
        said = json.loads(posted[1])
        assert (said["method"], said["body"]) == ("POST", '{"n": [1, null]}')
        assert said["headers"]["Content-Type"] == "application/json"
        assert packed[1] == "unpacked"
        assert cookie[2]["set-cookie"] == "a=b"
        assert "Cookie" not in json.loads(after[1])["headers"]  # nothing is kept from one request to the next
        assert await refusals(core) == []
        assert 'plugin_http_requests_total{outcome="ok",plugin="asker"} 5.0' in core.metrics.text()


async def test_only_listed_hosts_and_only_their_ports(tmp_path: Path, site: ThreadingHTTPServer) -> None:
    url = base(site)
    scope = {"local": [url.removeprefix("http://")], "hosts": ["api.example.com"]}
    async with opened(tmp_path, scope) as core:
        found = await ask(
            core,
            ("GET", f"{url}/"),
            ("GET", "http://other.example.com/"),
            ("GET", "http://127.0.0.1:1/"),
            ("GET", "https://api.example.com.evil.net/"),
        )
        assert [row[0] for row in found] == [200, *["permission_denied"] * 3]
        recorded = await refusals(core)
        assert [row["host"] for row in recorded] == ["other.example.com", "127.0.0.1", "api.example.com.evil.net"]
        assert "it is not among the hosts that it was granted" in recorded[0]["message"]


async def test_a_private_address_is_refused_unless_it_is_listed(tmp_path: Path, site: ThreadingHTTPServer) -> None:
    port = site.server_port
    async with opened(tmp_path, {"hosts": [f"localhost:{port}", f"127.0.0.1:{port}", "169.254.169.254"]}) as core:
        found = await ask(
            core,
            ("GET", f"http://localhost:{port}/"),
            ("GET", f"http://127.0.0.1:{port}/"),
            ("GET", f"http://[::ffff:127.0.0.1]:{port}/"),
            ("GET", f"http://0x7f000001:{port}/"),
            ("GET", f"http://2130706433:{port}/"),
            ("GET", "http://169.254.169.254/latest/meta-data/"),
        )
        codes = [row[0] for row in found]
        assert codes == [*["permission_denied"] * 3, *["invalid_input"] * 2, "permission_denied"]
        assert site.seen == []  # type: ignore[attr-defined]
        assert len(await refusals(core)) == 4


async def test_redirects_are_checked_like_requests(tmp_path: Path, site: ThreadingHTTPServer) -> None:
    url, port = base(site), site.server_port
    headers = {f"127.0.0.1:{port}": {"Authorization": "Bearer {{ secrets.key }}"}}
    scope = {"local": [f"127.0.0.1:{port}", f"localhost:{port}"], "headers": headers}
    async with opened(tmp_path, scope, {"key": "open-sesame"}) as core:
        within, out, odd, round_ = await ask(
            core,
            ("GET", f"{url}/to?http://localhost:{port}/there", {"headers": {"Cookie": "mine=1"}}),
            ("GET", f"{url}/to?http://169.254.169.254/"),
            ("GET", f"{url}/to?file:///etc/passwd"),
            ("GET", f"{url}/to?/to?/to?/to?/to?/to?/to?/x"),
        )
        assert within[3] == f"http://localhost:{port}/there"
        assert "Authorization" not in json.loads(within[1])["headers"]  # it is for the first place alone
        assert out[0] == "permission_denied"
        assert odd[0] == "request_failed"
        assert (round_[0], "redirects" in round_[1]) == ("request_failed", True)


async def test_secrets_are_put_in_by_the_host_and_taken_out_of_answers(
    tmp_path: Path, site: ThreadingHTTPServer
) -> None:
    url, port = base(site), site.server_port
    headers = {f"127.0.0.1:{port}": {"Authorization": "Bearer {{ secrets.api-key }}"}}
    scope = {"local": [f"127.0.0.1:{port}"], "headers": headers}
    async with opened(tmp_path, scope, {"api-key": "open-sesame"}) as core:
        [found] = await ask(core, ("GET", f"{url}/", {"headers": {"authorization": "mine"}}))
        assert json.loads(found[1])["headers"]["Authorization"] == "Bearer ***"
        assert found[2]["x-echo"] == "Bearer ***"
        assert "open-sesame" not in json.dumps([row.data async for row in core.history.query()])


async def test_a_secret_goes_over_https_only_and_has_to_be_there(tmp_path: Path, site: ThreadingHTTPServer) -> None:
    headers = {"example.com": {"X-Key": "{{ secrets.key }}"}, "example.org": {"X-Key": "{{ secrets.nope }}"}}
    async with opened(tmp_path, {"headers": headers}, {"key": "open-sesame"}) as core:
        plain, missing = await ask(core, ("GET", "http://example.com/"), ("GET", "https://example.org/"))
        assert (plain[0], "over https only" in plain[1]) == ("invalid_input", True)
        assert (missing[0], "'nope'" in missing[1]) == ("invalid_input", True)


async def test_size_and_time_are_bounded(tmp_path: Path, site: ThreadingHTTPServer) -> None:
    url = base(site)
    http = {"max_response": 10_000, "timeout": 20}
    async with opened(tmp_path, {"local": [url.removeprefix("http://")]}, http=http) as core:
        fits, big, bomb, slow = await ask(
            core,
            ("GET", f"{url}/big?10000"),
            ("GET", f"{url}/big?10001"),
            ("GET", f"{url}/bomb"),
            ("GET", f"{url}/slow", {"timeout": 0.2}),
        )
        assert (fits[0], len(fits[1])) == (200, 10_000)
        assert (big[0], "larger than 10,000 bytes" in big[1]) == ("request_failed", True)
        assert (bomb[0], "larger than 10,000 bytes" in bomb[1]) == ("request_failed", True)
        assert (slow[0], "longer than 0.2 s" in slow[1]) == ("request_failed", True)


async def test_the_eleventh_request_of_a_minute_is_refused_and_counted(
    tmp_path: Path, site: ThreadingHTTPServer
) -> None:
    url = base(site)
    scope = {"local": [url.removeprefix("http://")], "requests_per_minute": 10}
    async with opened(tmp_path, scope) as core:
        found = await ask(core, *[("GET", f"{url}/{number}") for number in range(11)])
        assert [row[0] for row in found] == [*[200] * 10, "rate_limited"]
        assert len(site.seen) == 10  # type: ignore[attr-defined]
        assert 'plugin_http_requests_total{outcome="rate",plugin="asker"} 1.0' in core.metrics.text()


async def test_without_the_grant_nothing_is_asked(tmp_path: Path, site: ThreadingHTTPServer) -> None:
    url = base(site)
    scope = {"local": [url.removeprefix("http://")]}
    async with opened(tmp_path, scope, manifest={"permissions": []}) as core:
        [found] = await ask(core, ("GET", url))
        assert found[0] == "permission_denied"
        [recorded] = await refusals(core)
        assert recorded["permission"] == "network_access"
    assert site.seen == []  # type: ignore[attr-defined]


NO_REQUESTS: list[tuple[Any, str]] = [
    (("TRACE", "http://example.com"), "no method"),
    (("GET", "ftp://example.com"), "does not begin with http"),
    (("GET", "http://me:word@example.com"), "holds no user name"),
    (("GET", "http://example.com", {"headers": {"Host": "x"}}), "the host's to set"),
    (("GET", "http://example.com", {"headers": {"X": "a\r\nY: b"}}), "characters that headers do not"),
    (("GET", "http://a b"), "no"),
    (("GET", "http://" + "a" * 9000), "at most 8,192"),
]


async def test_what_is_no_request(tmp_path: Path) -> None:
    async with opened(tmp_path, {}) as core:
        found = await ask(core, *[request for request, _ in NO_REQUESTS])
        assert [row[0] for row in found] == ["invalid_input"] * len(NO_REQUESTS)
        assert [row[1] for row, (_, says) in zip(found, NO_REQUESTS, strict=True) if says not in row[1]] == []


async def test_a_gate_only_looks(tmp_path: Path, site: ThreadingHTTPServer) -> None:
    url = base(site)
    code = f"""
from eventcore.sdk import Deny, PermissionDenied, ctx, gate
def run(params): return 1
@gate
async def on_message(message):
    seen = (await ctx.http.get("{url}/look")).status
    try:
        await ctx.http.post("{url}/change")
    except PermissionDenied as error:
        return Deny(f"{{seen}} {{error}}")
"""
    wanted = {"permissions": ["network_access", "chat_access"]}
    async with opened(tmp_path, {"local": [url.removeprefix("http://")]}, code=code, manifest=wanted) as core:
        outcome = await core.hooks.call("on_message", {"text": "hi"})
        assert outcome.reason is not None
        assert outcome.reason.startswith("200 asker may not POST")
    assert site.seen == ["/look"]  # type: ignore[attr-defined]


async def test_a_download_goes_into_the_plugins_folder(tmp_path: Path, site: ThreadingHTTPServer) -> None:
    url = base(site)
    scope = {"local": [url.removeprefix("http://")]}
    wanted = {"permissions": ["network_access", "filesystem_write"]}
    http = {"max_response": 1024, "max_download": 100_000}
    async with opened(tmp_path, scope, manifest=wanted, http=http) as core:
        data = tmp_path / ".eventcore" / "data" / "asker"
        (data / "link").symlink_to(tmp_path)
        kept, large, out, link = await ask(
            core,
            ("GET", f"{url}/big?90000", {"save_as": "kept.txt"}),
            ("GET", f"{url}/big?100001", {"save_as": "large.txt"}),
            ("GET", f"{url}/big?10", {"save_as": "../out.txt"}),
            ("GET", f"{url}/big?10", {"save_as": "link/out.txt"}),
        )
        assert (kept[0], kept[1], kept[4]["file"]["size"]) == (200, "", 90_000)
        assert (data / "kept.txt").read_bytes() == b"x" * 90_000
        assert await core.plugins.read_file(kept[4]) == b"x" * 90_000
        assert [large[0], out[0], link[0]] == ["request_failed", "permission_denied", "invalid_input"]
        assert sorted(path.name for path in data.iterdir()) == ["kept.txt", "link"]  # no part is left
        assert not (tmp_path / "out.txt").exists()


async def test_a_name_that_changes_its_address_does_not_get_in(site: ThreadingHTTPServer) -> None:
    """DNS rebinding: whatever a second look-up would say, the connection goes to what was checked."""
    answers = [["192.0.2.1"], ["127.0.0.1"]]
    looked: list[str] = []

    async def resolver(host: str, port: int) -> list[str]:
        looked.append(host)
        return answers.pop(0)

    backend = CheckedBackend(lambda host, port: False, resolver)
    with pytest.raises(AddressRefused, match=r"192\.0\.2\.1: it is a private or reserved address"):
        await backend.connect_tcp("rebind.example", site.server_port, 1)
    with pytest.raises(AddressRefused, match=r"127\.0\.0\.1: it is this machine"):
        await backend.connect_tcp("rebind.example", site.server_port, 1)
    assert looked == ["rebind.example"] * 2  # once for each connection


def test_addresses() -> None:
    refused = (
        "127.0.0.1 10.1.2.3 172.16.0.1 192.168.1.1 169.254.1.1 100.64.0.1 0.0.0.0 224.0.0.1 255.255.255.255 ::1 :: "
    )
    refused += "fe80::1 fc00::1 ::ffff:10.0.0.1 64:ff9b::7f00:1 2002:7f00:1:: fe80::1%eth0 192.0.2.7 fd00:ec2::254"
    assert [one for one in refused.split() if not forbidden(one, local=False)] == []
    assert forbidden("93.184.215.14", local=False) == forbidden("2606:4700::1111", local=False) == ""
    assert forbidden("127.0.0.1", local=True) == forbidden("10.0.0.1", local=True) == ""
    carried = "::127.0.0.1 ::ffff:0:10.0.0.1 64:ff9b:1::7f00:1 fec0::1 192.0.0.8"
    assert [one for one in carried.split() if not forbidden(one, local=False)] == []
    for one in "169.254.169.254 169.254.170.23 168.63.129.16 192.0.0.192 fd20:ce::254 ::a9fe:a9fe".split():
        assert "metadata" in forbidden(one, local=True)
    assert "metadata" in forbidden("::ffff:169.254.169.254", local=True)


def test_hosts() -> None:
    plain, below, port = HostRule.of("API.Example.com."), HostRule.of("*.example.com"), HostRule.of("[::1]:8080")
    assert plain.covers("https", "api.example.com", 443)
    assert not plain.covers("https", "api.example.com", 8443)
    assert not plain.covers("https", "x.api.example.com", 443)
    assert below.covers("http", "a.b.example.com", 80)
    assert not below.covers("http", "example.com", 80)
    assert not below.covers("http", "badexample.com", 80)
    assert port.covers("http", "::1", 8080)
    assert HostRule.of("münchen.example").name == "xn--mnchen-3ya.example"
    for wrong in ("", "http://x", "a/b", "*.1.2.3.4", "x:0", "x:99999", "a b", "0x7f.1", "12345"):
        with pytest.raises(InvalidInput):
            HostRule.of(wrong)
    assert canonical_host("0177.0.0.1") == ""


def test_a_bucket() -> None:
    bucket = Bucket(60, 0.0)
    assert [bucket.take(0.0) for _ in range(61)] == [*[0.0] * 60, 1.0]
    assert bucket.take(1.0) == 0.0
    assert bucket.take(1.5) == pytest.approx(0.5)


async def test_a_plain_function_asks_too(tmp_path: Path, site: ThreadingHTTPServer) -> None:
    url = base(site)
    code = f"from eventcore.sdk import ctx\ndef run(params):\n    return ctx.http.get('{url}/big?3').value.text"
    async with opened(tmp_path, {"local": [url.removeprefix("http://")]}, code=code) as core:
        assert await core.plugins.run("asker") == "xxx"


async def test_a_wrong_host_in_the_settings_is_explained(tmp_path: Path) -> None:
    async with opened(tmp_path, {"hosts": ["https://api.example.com/v1"]}) as core:
        [found] = await ask(core, ("GET", "https://api.example.com/v1"))
        assert (found[0], "is no host" in found[1]) == ("invalid_input", True)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_its_own_process_has_no_socket(tmp_path: Path, anyio_backend: str) -> None:
    code = "import socket\ndef run(params):\n    return socket.create_connection(('127.0.0.1', 1))"
    async with opened(tmp_path, {}, code=code) as core:
        with pytest.raises(PluginFailed, match="Operation not permitted"):
            await core.plugins.run("asker")
