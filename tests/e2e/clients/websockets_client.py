"""Every kind of message and of ending, against websockets_server.py; over TLS with an authority."""
import asyncio
import ssl
import sys

import websockets

URL = f"ws://{sys.argv[1]}/chat"
HOW = {}
if len(sys.argv) > 2:
    URL = URL.replace("ws:", "wss:")
    HOW["ssl"] = ssl.create_default_context(cafile=sys.argv[2])
LARGE = bytes(range(256)) * 256 * 256


async def messages(**how):
    async with websockets.connect(URL, max_size=2 * len(LARGE), **HOW, **how) as socket:
        for message in ("text", "", "\u2603" * 1000, b"", bytes(range(256)), LARGE):
            await socket.send(message)
            assert await socket.recv() == message
        # Each part is a frame of its own.
        await socket.send(["a", "b", "c" * 70_000])
        assert await socket.recv() == "ab" + "c" * 70_000
        await (await socket.ping(b"are you there"))
        await asyncio.gather(*(socket.send(str(number)) for number in range(500)))
        for number in range(500):
            assert await socket.recv() == str(number)


async def client_closes():
    async with websockets.connect(URL, **HOW) as socket:
        await socket.send("text")
        await socket.recv()
        await socket.close(4001, "the client says so")
    assert socket.close_code == 4001
    # The server hears of it a moment after its answer has arrived here.
    async with websockets.connect(URL, **HOW) as socket:
        for _ in range(1000):
            await socket.send("last")
            said = await socket.recv()
            if said == "4001 the client says so":
                return
            await asyncio.sleep(0.01)
    raise AssertionError(said)


async def server_closes():
    async with websockets.connect(URL, **HOW) as socket:
        await socket.send("close")
        try:
            raise AssertionError(await socket.recv())
        except websockets.ConnectionClosed:
            pass
        assert (socket.close_code, socket.close_reason) == (4002, "the server says so")


async def main():
    await messages()
    await messages(compression=None)
    await client_closes()
    await server_closes()


asyncio.run(asyncio.wait_for(main(), 50))
