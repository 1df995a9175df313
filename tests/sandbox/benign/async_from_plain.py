"""A plain function that runs a loop of its own."""

import asyncio

EXPECTED = [1, 2]


async def _later(value):
    await asyncio.sleep(0.001)
    return value


def run(params):
    async def both():
        return await asyncio.gather(_later(1), _later(2))

    return asyncio.run(both())
