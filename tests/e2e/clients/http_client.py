"""Everything on one connection of the standard library's client."""
import http.client
import sys

connection = http.client.HTTPConnection(sys.argv[1], timeout=20)


def exchange(method, target, **how):
    connection.request(method, target, **how)
    response = connection.getresponse()
    return response, response.read()


for size in (0, 1, 100_000):
    assert exchange("POST", "/", body=b"x" * size)[1] == b"x" * size
    chunks = iter([b"y" * 1000] * 50)
    headers = {"Transfer-Encoding": "chunked"}
    _, body = exchange("PUT", "/?chunked", body=chunks, encode_chunked=True, headers=headers)
    assert body == b"y" * 50_000

response, body = exchange("HEAD", "/bytes/5")
assert (response.status, body, response.getheader("content-length")) == (200, b"", "5")
assert len(exchange("GET", "/bytes/5")[1]) == 5
