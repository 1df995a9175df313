"""Tasks, queues, timeouts, threads for what blocks."""

import asyncio

EXPECTED = {"sum": 45, "late": True, "threads": [0, 1, 4]}


async def _produce(queue):
    for number in range(10):
        await queue.put(number)
    await queue.put(None)


async def run(params):
    queue = asyncio.Queue(2)
    total = 0
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(_produce(queue))
        while (number := await queue.get()) is not None:
            total += number
    try:
        async with asyncio.timeout(0.01):
            await asyncio.sleep(5)
        late = False
    except TimeoutError:
        late = True
    threads = await asyncio.gather(*(asyncio.to_thread(pow, n, 2) for n in range(3)))
    return {"sum": total, "late": late, "threads": list(threads)}
