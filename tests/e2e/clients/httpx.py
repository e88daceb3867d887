"""httpx: one connection of its pool, streaming up and down."""
import sys

import httpx

PIECE = bytes(range(256)) * 100

with httpx.Client(base_url=f"http://{sys.argv[1]}", timeout=20) as client:
    for size in (0, 1, 100_000):
        assert client.post("/", content=b"x" * size).content == b"x" * size

    up = client.put("/?chunked", content=(PIECE for _ in range(40)))
    assert up.request.headers["transfer-encoding"] == "chunked"
    assert up.content == PIECE * 40

    with client.stream("GET", "/bytes/1000000?chunked") as down:
        assert sum(len(part) for part in down.iter_raw()) == 1_000_000

    head = client.head("/bytes/5")
    assert (head.status_code, head.content, head.headers["content-length"]) == (200, b"", "5")
    assert client.request("DELETE", "/", content=b"gone").content == b"gone"
    assert client.post("/", data={"a": "b"}, headers={"Connection": "keep-alive"}).text == "a=b"
