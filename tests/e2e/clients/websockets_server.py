"""Echoes messages, prints its port, and does what the words "close" and "last" ask for."""
import asyncio

import websockets

LARGE = 32 * 1024 * 1024
# Of the last connection that a client closed.
last = "none"


async def serve(socket, path=None):
    global last
    try:
        async for message in socket:
            if message == "close":
                return await socket.close(4002, "the server says so")
            await socket.send(last if message == "last" else message)
        last = f"{socket.close_code} {socket.close_reason}"
    except websockets.ConnectionClosedError as closed:
        last = f"{socket.close_code} {socket.close_reason}"


async def main():
    async with websockets.serve(serve, "127.0.0.1", 0, max_size=LARGE) as server:
        print(server.sockets[0].getsockname()[1], flush=True)
        await asyncio.Future()


asyncio.run(main())
