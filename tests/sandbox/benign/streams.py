"""asyncio's streams over a pair of sockets."""

import asyncio
import socket

EXPECTED = "PING"


async def run(params):
    ours, theirs = socket.socketpair()
    reader, writer = await asyncio.open_connection(sock=ours)
    other_reader, other_writer = await asyncio.open_connection(sock=theirs)
    writer.write(b"ping\n")
    await writer.drain()
    other_writer.write((await other_reader.readline()).upper())
    answer = await reader.readline()
    for one in (writer, other_writer):
        one.close()
        await one.wait_closed()
    return answer.decode().strip()
