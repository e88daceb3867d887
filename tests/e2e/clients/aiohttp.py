"""aiohttp: fifty requests at once, and bodies whose length nobody knows beforehand."""
import asyncio
import sys

import aiohttp

BASE = f"http://{sys.argv[1]}"


async def pieces(count):
    for number in range(count):
        yield bytes([number % 256]) * 1000
        await asyncio.sleep(0)


async def post(session, number):
    body = b"".join([piece async for piece in pieces(number)])
    sent = pieces(number) if number % 2 else body
    async with session.post(f"{BASE}/{'?chunked' * (number % 3 == 0)}", data=sent) as response:
        assert response.status == 200
        assert await response.read() == body


async def main():
    timeout = aiohttp.ClientTimeout(total=30)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        await asyncio.gather(*(post(session, number) for number in range(50)))
        async with session.head(f"{BASE}/bytes/5") as response:
            assert response.headers["content-length"] == "5"
            assert await response.read() == b""
        async with session.get(f"{BASE}/bytes/3000000") as response:
            got = 0
            async for part in response.content.iter_any():
                got += len(part)
            assert got == 3_000_000
        # Left before its end: the connection cannot be kept, and nobody else suffers.
        async with session.get(f"{BASE}/bytes/3000000") as response:
            await response.content.readany()
        await post(session, 3)


asyncio.run(main())
