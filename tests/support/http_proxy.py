"""A loopback proxy in front of an HTTP server that counts requests, connections and bytes, and can delay or refuse requests.

It passes bytes through unchanged, so signatures stay valid. It understands requests without a body only (GET, HEAD):
what a reader sends.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from urllib.parse import urlsplit


REFUSAL = b"HTTP/1.1 503 Slow Down\r\nContent-Length: 0\r\n\r\n"


@dataclass
class Request:
    method: str
    target: str
    range: str | None
    depth: int = 1  # how many requests had to end, one after the other, before this one was sent
    done: bool = False
    status: int = 0  # of the answer
    bytes: int = 0  # of its body


@dataclass
class Log:
    """What went through. Reset it between two things to be counted."""

    requests: list[Request] = field(default_factory=list)
    connections: int = 0
    in_flight: int = 0
    max_in_flight: int = 0
    deepest_done: int = 0

    @property
    def bytes(self) -> int:
        return sum(r.bytes for r in self.requests)

    @property
    def waves(self) -> int:
        """Dependent round trips: the longest chain of requests, each sent after the one before was answered."""
        return max((r.depth for r in self.requests), default=0)

    def reset(self) -> None:
        self.requests.clear()
        self.connections = self.max_in_flight = self.deepest_done = 0


class Proxy:
    def __init__(self, upstream: str, delay: float | Callable[[], float] = 0.0) -> None:
        """`upstream`: http://host:port. `delay`: seconds that a request is held back; a function is asked for each."""
        parts = urlsplit(upstream)
        self._upstream = (parts.hostname or "127.0.0.1", parts.port or 80)
        self.delay = delay
        self.refuses: Callable[[], bool] = lambda: False  # with 503, as S3 does that is asked for too much
        self.log = Log()
        self._tasks: set[asyncio.Task[None] | None] = set()  # nobody else has them once their client has hung up
        self.endpoint = ""

    async def serve(self, ready: threading.Event, stop: asyncio.Event) -> None:
        server = await asyncio.start_server(self._client, "127.0.0.1", 0, backlog=1024)
        self.endpoint = "http://127.0.0.1:%d" % server.sockets[0].getsockname()[1]
        ready.set()
        await stop.wait()
        server.close()
        clients = asyncio.all_tasks() - {asyncio.current_task()}
        for task in clients:
            task.cancel()
        await asyncio.gather(*clients, return_exceptions=True)
        for _ in range(3):  # closed transports let go of their sockets in a later turn of the loop
            await asyncio.sleep(0)

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.log.connections += 1
        self._tasks.add(task := asyncio.current_task())
        up_reader, up_writer = await asyncio.open_connection(*self._upstream)
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                request = self._begin(head)
                if self.refuses():
                    request.status = 503
                    self._end(request)
                    writer.write(REFUSAL)
                    continue
                await asyncio.sleep(self.delay() if callable(self.delay) else self.delay)
                up_writer.write(head)
                await self._pass_response(up_reader, writer, request)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass  # either side hung up between two requests, or the proxy stops
        finally:
            self._tasks.discard(task)
            up_writer.close()
            writer.close()

    def _begin(self, head: bytes) -> Request:
        lines = head.decode("latin-1").split("\r\n")
        method, target, _ = lines[0].split(" ", 2)
        range_ = next((line.split(":", 1)[1].strip() for line in lines if line.lower().startswith("range:")), None)
        request = Request(method, target, range_, depth=1 + self.log.deepest_done)
        self.log.requests.append(request)
        self.log.in_flight += 1
        self.log.max_in_flight = max(self.log.max_in_flight, self.log.in_flight)
        return request

    def _end(self, request: Request) -> None:
        self.log.in_flight -= 1
        request.done = True
        self.log.deepest_done = max(self.log.deepest_done, request.depth)

    async def _pass_response(self, up: asyncio.StreamReader, down: asyncio.StreamWriter, request: Request) -> None:
        head = await up.readuntil(b"\r\n\r\n")
        fields = {k.strip().lower(): v.strip() for k, _, v in
                  (line.partition(":") for line in head.decode("latin-1").split("\r\n")[1:])}
        body = bytearray()
        if request.method != "HEAD":
            if fields.get("transfer-encoding", "").lower() == "chunked":
                while True:
                    line = await up.readuntil(b"\r\n")
                    body += line + await up.readexactly(int(line, 16) + 2)
                    if int(line, 16) == 0:
                        break
            else:
                body += await up.readexactly(int(fields.get("content-length", "0")))
        request.status, request.bytes = int(head.split(b" ", 2)[1]), len(body)
        self._end(request)  # before the client can see it: what it sends next depends on it
        down.write(head + bytes(body))
        await down.drain()


@contextlib.contextmanager
def proxy(upstream: str, delay: float | Callable[[], float] = 0.0) -> Iterator[Proxy]:
    """Runs one on a thread of its own."""
    p = Proxy(upstream, delay)
    loop = asyncio.new_event_loop()
    ready, stop = threading.Event(), asyncio.Event()
    thread = threading.Thread(target=loop.run_until_complete, args=(p.serve(ready, stop),), daemon=True)
    thread.start()
    ready.wait(10)
    try:
        yield p
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
        loop.close()
