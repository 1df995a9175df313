"""An HTTP client against a server of its own, in memory: httpx, which is lazy about what it imports."""

import httpx

EXPECTED = {"status": 200, "body": {"path": "/x"}}


async def run(params):
    def answer(request):
        return httpx.Response(200, json={"path": request.url.path})

    async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as client:
        found = await client.get("http://somewhere/x")
    return {"status": found.status_code, "body": found.json()}
