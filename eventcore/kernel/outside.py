"""Settings of what plugins reach outside of their sandbox: hosts, programs, folders, containers."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from eventcore.kernel.section import Section, Text, Words, unique

Port = Annotated[int, Field(ge=1, le=65535)]
Ports = Annotated[tuple[Port, ...], Field(strict=False), AfterValidator(unique)]

_MIB = 1 << 20


class PluginScope(Section):
    """How far the grants of one plugin reach. A permission that it was not granted is not given here.

    Attributes:
        hosts: with `network_access`, the only hosts that `ctx.http` may ask: `api.example.com`, `*.example.com`,
            `example.com:8443`. Without it the manifest's hosts hold, and if it names none, every public host.
        local: hosts whose addresses may be loopback or private ones, such as `127.0.0.1:8080`.
        headers: headers that the host adds to requests, by host; `{{ secrets.NAME }}` stands for a secret, which the
            plugin does not see.
        requests_per_minute: requests of `ctx.http`; 0 for the `[http]` table's number.
        ports: with `network_access`, TCP ports that its own code may connect to.
        programs: with `system_access`, programs that `ctx.run` may start: names on the usual path, or absolute paths.
        execute: with `system_access`, programs that its own code may start inside its sandbox.
        read: with `filesystem_read`, more files and folders to read.
        write: with `filesystem_write`, more folders to change.
        network: with `network_access`, the network of its container; nothing limits what it reaches over it.
    """

    hosts: Words = Field(default=(), description="Hosts that `ctx.http` may ask. List of names.")
    local: Words = Field(default=(), description="Hosts whose addresses may be private ones. List of names.")
    headers: dict[Text, dict[Text, Text]] = Field(
        default_factory=dict, description="Headers that the host adds. Tables of texts by host."
    )
    requests_per_minute: float = Field(default=0.0, ge=0, le=1_000_000, description="Requests a minute.")
    ports: Ports = Field(default=(), description="TCP ports to connect to. List of numbers.")
    programs: Words = Field(default=(), description="Programs for `ctx.run`. List of names or paths.")
    execute: Words = Field(default=(), description="Programs to start inside the sandbox. List of names or paths.")
    read: Words = Field(default=(), description="More files and folders to read. List of absolute paths.")
    write: Words = Field(default=(), description="More folders to change. List of absolute paths.")
    network: str = Field(default="", max_length=128, description="The network of its container, such as bridge. Text.")


class HttpSettings(Section):
    """Requests that the host makes for plugins (`ctx.http`)."""

    timeout: float = Field(
        default=30.0, gt=0, le=3600, description="Longest that one request may take. Seconds.", examples=[10]
    )
    max_response: int = Field(
        default=700_000,
        ge=1024,
        le=700_000,
        description="Largest body that comes back in an answer. Bytes.",
        examples=[65_536],
    )
    max_download: int = Field(
        default=64 * _MIB,
        ge=1024,
        le=1 << 40,
        description="Largest body that is saved as a file. Bytes.",
        examples=[1_048_576],
    )
    max_redirects: int = Field(default=5, ge=0, le=20, description="Redirects that are followed.", examples=[0])
    requests_per_minute: float = Field(
        default=600.0, gt=0, le=1_000_000, description="Requests that one plugin may make in a minute.", examples=[10]
    )
    connections: int = Field(
        default=8, ge=1, le=256, description="Connections that one plugin holds at once.", examples=[2]
    )


class ProgramSettings(Section):
    """Programs that plugins run (`ctx.run`), each confined as its plugin is."""

    timeout: float = Field(
        default=60.0, gt=0, le=86_400, description="Longest that one program may run. Seconds.", examples=[10]
    )
    max_output: int = Field(
        default=250_000,
        ge=1024,
        le=250_000,
        description="Bytes that are kept of what a program writes to each of its two streams.",
        examples=[65_536],
    )
    path: Words = Field(
        default=("/usr/local/bin", "/usr/bin", "/bin"),
        description="Folders in which programs are looked up. List of absolute paths.",
        examples=[["/usr/bin"]],
    )
    at_once: int = Field(default=4, ge=1, le=256, description="Programs that run at the same time.", examples=[1])


class ContainerSettings(Section):
    """Plugins that run in containers."""

    socket: Text | None = Field(
        default=None,
        description="Docker Engine API: a socket's path or a URL. Text; without it, DOCKER_HOST, else the usual path.",
        examples=["/run/podman/podman.sock"],
    )
    image: Text | None = Field(
        default=None,
        description="Image of plugins that name none. Text; without it, python:X.Y-slim of the host's version.",
        examples=["python:3.12-slim"],
    )
    fallback: bool = Field(
        default=False,
        description="Whether a container plugin may run in a process where no engine answers. Boolean.",
        examples=[True],
    )
    stop_timeout: float = Field(
        default=10.0, ge=0, le=600, description="How long a container may take to stop. Seconds.", examples=[2]
    )
    start_timeout: float = Field(
        default=60.0, gt=0, le=3600, description="How long a container may take to start. Seconds.", examples=[20]
    )
    build_timeout: float = Field(
        default=600.0,
        gt=0,
        le=86_400,
        description="How long an image may take to pull or build. Seconds.",
        examples=[60],
    )
