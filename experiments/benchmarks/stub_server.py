"""A server on loopback that answers every request with one fixed reply: stub_server.py REPLY.json

Prints its port. Runs in a process of its own, so that its CPU is not counted with a client's.
"""

from __future__ import annotations

import asyncio
import re
import sys
from pathlib import Path


class Stub(asyncio.Protocol):
    reply = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport, self.buffer = transport, b""

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while (end := self.buffer.find(b"\r\n\r\n")) >= 0:
            head = self.buffer[:end].lower()
            sized = re.search(rb"content-length: *(\d+)", head)
            length = int(sized[1]) if sized else 0
            if len(self.buffer) < end + 4 + length:
                return
            self.buffer = self.buffer[end + 4 + length :]
            self.transport.write(self.reply)  # type: ignore[attr-defined]


async def main(body: bytes) -> None:
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    Stub.reply = head.encode() + body
    server = await asyncio.get_running_loop().create_server(Stub, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]).read_bytes()))
