"""What h11 makes of each head on standard input, each after its length as four bytes.

A line for each: `W` where it waits for more, `R` and the reason where it refuses, or `T`, bytes
consumed, method, target, version, body, and names and values of the fields, all separated by NUL,
which none of them can contain.
"""
import struct
import sys

import h11
# No public name says where it believes the body to end.
from h11._connection import _body_framing


def verdict(head):
    connection = h11.Connection(h11.SERVER)
    # No bytes at all would tell it that the connection has ended.
    if head:
        connection.receive_data(head)
    try:
        event = connection.next_event()
    except h11.RemoteProtocolError as error:
        return [b"R", str(error).encode().replace(b"\0", b"\\0").replace(b"\n", b"\\n")]
    if event is h11.NEED_DATA:
        return [b"W"]
    kind, length = _body_framing(event.method, event)
    body = b"chunked" if kind == "chunked" else b"%d" % length
    consumed = b"%d" % (len(head) - len(connection.trailing_data[0]))
    fields = [part for field in event.headers.raw_items() for part in field]
    return [b"T", consumed, event.method, event.target, event.http_version, body, *fields]


def main():
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    while length := source.read(4):
        head = source.read(*struct.unpack(">I", length))
        sink.write(b"\0".join(verdict(head)) + b"\n")


main()
