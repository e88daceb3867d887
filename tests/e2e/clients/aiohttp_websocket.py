"""aiohttp's WebSocket client, against websockets_server.py."""
import asyncio
import sys

import aiohttp


async def main():
    timeout = aiohttp.ClientTimeout(total=30)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        async with session.ws_connect(f"http://{sys.argv[1]}/chat") as socket:
            await socket.send_str("text")
            assert await socket.receive_str() == "text"
            await socket.send_bytes(bytes(range(256)))
            assert await socket.receive_bytes() == bytes(range(256))
            await socket.send_str("close")
            message = await socket.receive()
            assert (message.type, message.data) == (aiohttp.WSMsgType.CLOSE, 4002)
            assert message.extra == "the server says so"


asyncio.run(main())
