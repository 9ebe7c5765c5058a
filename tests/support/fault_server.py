"""An HTTP front that passes requests on to an S3 server and, as it is told, does to them what networks and servers do.

Requests and replies pass unchanged but for the hop-by-hop headers, so signatures stay valid. It is also a forward proxy:
it takes requests with an absolute target and passes them to its own upstream, whatever host they name.

From pytest:

    with s3_server() as s3, fault_server(s3.endpoint) as front:
        front.plan(Fault(match="GET", short=100, times=2))
        ...                       # against front.endpoint
        assert front.log()["requests"][0]["fault"] == 0

From a C test, as the process around it; the plan is set by PUT PLAN_TARGET with a JSON list of faults, GET LOG_TARGET
tells what came:

    python tests/support/fault_server.py -- build-asan/tests/unit/store/s3_front_test
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import dataclasses
import json
import os
import re
import socket
import ssl
import struct
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import dataclass
from email.utils import formatdate
from hashlib import md5
from pathlib import Path
from urllib.parse import unquote_to_bytes, urlsplit

sys.path.insert(0, str(Path(__file__).resolve().parent))

from certificates import Certificates, certificates  # noqa: E402
from s3_server import s3_server  # noqa: E402

PLAN_TARGET, LOG_TARGET = "/__faults__/plan", "/__faults__/log"
HOP_BY_HOP = {"connection", "keep-alive", "proxy-connection", "transfer-encoding", "expect"}
MAX_REQUEST = 64 << 20


@dataclass
class Fault:
    """What is done to requests that match, from the first that does; the first fault of a plan that is not used up counts."""

    match: str = ""  # a part of "METHOD target"
    having: str = ""  # a header, in lower case, that the request has
    lacking: str = ""  # one that it has not
    skip: int = 0  # matching requests that pass unharmed before
    times: int = 1  # how many get it; -1: all
    latency: float = 0.0  # seconds before the request is passed on
    # instead of the upstream's reply
    status: int = 0
    code: str = ""  # of an S3 error document
    retry_after: int | None = None
    location: str = ""
    garbage: bool = False  # what is sent is no HTTP
    close: bool = False  # the connection is closed without a word
    # done to the reply; n counts bytes of its body, and -1 stands for before the header
    short: int | None = None  # ends after n bytes, in good order
    reset: int | None = None  # is reset after n bytes
    stall: int | None = None  # silence after n bytes, until the client goes
    drip: float = 0.0  # seconds between any two bytes
    length: int = 0  # added to the Content-Length that is announced
    etag: str = ""  # another one
    weak: bool = False  # the same, said weakly
    clock: int = 0  # seconds that its Date is ahead of the right time
    drop: str = ""  # a header of the reply, in lower case, that goes
    no_total: bool = False  # Content-Range does not tell the object's size
    corrupt: int | None = None  # this byte of the body is inverted
    unsorted: bool = False  # objects of a listing come in the order of their last parts
    twice: bool = False  # is sent a second time behind the first
    hold: bool = False  # waits until a later request has got its own


@dataclass
class Request:
    method: str
    target: str
    range: str | None
    payer: str | None = None  # x-amz-request-payer
    fault: int | None = None  # place in the plan
    answered: bool = False


def parse_head(head: bytes) -> tuple[str, dict[str, str]]:
    """First line and fields, names in lower case."""
    lines = head.decode("latin-1").split("\r\n")
    fields = {k.strip().lower(): v.strip() for k, _, v in (line.partition(":") for line in lines[1:]) if k.strip()}
    return lines[0], fields


def strip_head(head: bytes, first: str, *more: str) -> bytes:
    """The head with another first line, without what concerns one connection only."""
    kept = [line for line in head.decode("latin-1").split("\r\n")[1:]
            if line and line.partition(":")[0].strip().lower() not in HOP_BY_HOP]
    return "\r\n".join([first, *kept, *more, "", ""]).encode("latin-1")


class Front:
    def __init__(self, upstream: str) -> None:
        parts = urlsplit(upstream)
        self._upstream = (parts.hostname or "127.0.0.1", parts.port or 80)
        self._plan: list[Fault] = []
        self._used: list[int] = []  # matching requests so far, a fault
        self._requests: list[Request] = []
        self._answered = asyncio.Condition()
        self._tasks: set[asyncio.Task[None]] = set()
        self.connections = self.open = 0
        self.endpoint = ""
        self.tls_endpoints: dict[str, str] = {}  # by the certificate that is shown

    # ------------------------------------------------------------------ what tests call, from their own thread

    def plan(self, *faults: Fault) -> None:
        """Replaces the plan and forgets what came so far."""
        body = json.dumps([dataclasses.asdict(f) for f in faults]).encode()
        request = urllib.request.Request(self.endpoint + PLAN_TARGET, data=body, method="PUT")
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=10):
            pass

    def log(self) -> dict[str, object]:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(
                self.endpoint + LOG_TARGET, timeout=10) as reply:
            return json.load(reply)

    # ------------------------------------------------------------------ life

    async def serve(self, contexts: dict[str, ssl.SSLContext], ready: threading.Event, stop: asyncio.Event) -> None:
        async with contextlib.AsyncExitStack() as stack:
            server = await asyncio.start_server(self._client, "127.0.0.1", 0, backlog=1024, limit=1 << 20)
            await stack.enter_async_context(server)
            self.endpoint = "http://127.0.0.1:%d" % server.sockets[0].getsockname()[1]
            for name, context in contexts.items():
                tls = await asyncio.start_server(self._client, "127.0.0.1", 0, backlog=1024, limit=1 << 20, ssl=context)
                await stack.enter_async_context(tls)
                self.tls_endpoints[name] = "https://127.0.0.1:%d" % tls.sockets[0].getsockname()[1]
            ready.set()
            await stop.wait()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for _ in range(3):  # closed transports let go of their sockets in a later turn of the loop
            await asyncio.sleep(0)

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        counted = False
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                first, fields = parse_head(head)
                method, target, _ = first.split(" ", 2)
                body = await self._read_body(reader, writer, fields)
                if target in (PLAN_TARGET, LOG_TARGET):
                    await self._control(writer, target, body)
                    continue
                if not counted:
                    counted = True
                    self.connections += 1
                    self.open += 1
                if not await self._pass(reader, writer, method, target, head, fields, body):
                    break
        except (asyncio.IncompleteReadError, ConnectionError, TimeoutError, ssl.SSLError):
            pass  # the client has gone
        except asyncio.CancelledError:
            writer.transport.abort()  # the front stops: what nobody reads any more need not be sent
            raise
        finally:
            self.open -= counted
            writer.close()

    async def _read_body(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, fields: dict[str, str]) -> bytes:
        if fields.get("expect", "").lower() == "100-continue":
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        n = int(fields.get("content-length", "0"))
        if n > MAX_REQUEST:
            raise ConnectionError("request body")
        return await reader.readexactly(n)

    async def _control(self, writer: asyncio.StreamWriter, target: str, body: bytes) -> None:
        reply: object = {}
        if target == PLAN_TARGET:
            self._plan = [Fault(**f) for f in json.loads(body)]
            self._used = [0] * len(self._plan)
            self._requests = []
            self.connections = 0
        else:
            reply = {"requests": [dataclasses.asdict(r) for r in self._requests], "connections": self.connections,
                     "open": self.open}
        text = json.dumps(reply).encode()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(text) + text)
        await writer.drain()

    # ------------------------------------------------------------------ one request

    def _choose(self, request: Request, fields: dict[str, str]) -> Fault:
        line = f"{request.method} {request.target}"
        for i, fault in enumerate(self._plan):
            if fault.match not in line or (fault.having and fault.having not in fields) or fault.lacking in fields:
                continue
            if fault.times >= 0 and self._used[i] >= fault.skip + fault.times:
                continue
            self._used[i] += 1
            if self._used[i] > fault.skip:
                request.fault = i
                return fault
        return Fault()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, method: str, target: str, head: bytes,
                    fields: dict[str, str], body: bytes) -> bool:
        """Whether the connection may be used again."""
        request = Request(method, target, fields.get("range"), fields.get("x-amz-request-payer"))
        self._requests.append(request)
        fault = self._choose(request, fields)
        if not fault.status and "content-md5" in fields and fields["content-md5"] != b64encode(md5(body).digest()).decode():
            fault = Fault(status=400, code="BadDigest")
        await self._delay(reader, fault.latency)
        if fault.close:
            return False
        if fault.garbage:
            writer.write(b"\x00\x16SSH-2.0-whatever\r\n\r\n" + b"\xff" * 64)
            await writer.drain()
            return False
        if fault.status:
            reply_head, reply_body = self._own_reply(fault, method)
        else:
            reply_head, reply_body = await self._ask_upstream(method, target, head, body)
        if fault.hold:
            await self._wait_for_another(request)
        again = await self._reply(reader, writer, method, fault, reply_head, reply_body)
        request.answered = True
        async with self._answered:
            self._answered.notify_all()
        return again

    async def _delay(self, reader: asyncio.StreamReader, seconds: float) -> None:
        """No longer than the client waits."""
        over = asyncio.get_running_loop().time() + seconds
        while (left := over - asyncio.get_running_loop().time()) > 0:
            if reader.at_eof():
                raise ConnectionError("the client has gone")
            await asyncio.sleep(min(left, 0.02))

    async def _wait_for_another(self, request: Request) -> None:
        later = self._requests.index(request) + 1
        async with self._answered:
            await self._answered.wait_for(lambda: any(r.answered for r in self._requests[later:]))

    def _own_reply(self, fault: Fault, method: str) -> tuple[bytes, bytes]:
        body = b""
        if fault.code and method != "HEAD":
            body = (f'<?xml version="1.0" encoding="UTF-8"?><Error><Code>{fault.code}</Code><Message>By order.</Message>'
                    "<RequestId>FRONT</RequestId></Error>").encode()
        lines = [f"HTTP/1.1 {fault.status} Fault", f"Content-Length: {len(body)}", "x-amz-request-id: FRONT"]
        if fault.retry_after is not None:
            lines.append(f"Retry-After: {fault.retry_after}")
        if fault.location:
            lines.append(f"Location: {fault.location}")
        return "\r\n".join([*lines, "", ""]).encode(), body

    async def _ask_upstream(self, method: str, target: str, head: bytes, body: bytes) -> tuple[bytes, bytes]:
        if "://" in target:  # as to a proxy
            parts = urlsplit(target)
            target = parts.path + ("?" + parts.query if parts.query else "")
        reader, writer = await asyncio.open_connection(*self._upstream, limit=1 << 20)
        try:
            writer.write(strip_head(head, f"{method} {target} HTTP/1.1", "Connection: close") + body)
            while True:
                reply = await reader.readuntil(b"\r\n\r\n")
                first, fields = parse_head(reply)
                if not first.startswith("HTTP/1.1 1"):
                    break
            return reply, b"" if method == "HEAD" else await self._read_reply(reader, fields)
        finally:
            writer.close()

    async def _read_reply(self, reader: asyncio.StreamReader, fields: dict[str, str]) -> bytes:
        if fields.get("transfer-encoding", "").lower() != "chunked":
            return await reader.readexactly(int(fields.get("content-length", "0")))
        body = b""
        while True:
            n = int(await reader.readuntil(b"\r\n"), 16)
            body += (await reader.readexactly(n + 2))[:-2]
            if n == 0:
                return body

    # ------------------------------------------------------------------ one reply

    async def _reply(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, method: str, fault: Fault, head: bytes,
                     body: bytes) -> bool:
        first, fields = parse_head(head)
        announced = int(fields.get("content-length", len(body))) if method == "HEAD" else len(body)
        if fault.no_total and "content-range" in fields:
            fields["content-range"] = fields["content-range"].partition("/")[0] + "/*"
        if fault.etag:
            fields["etag"] = fault.etag
        if fault.weak and "etag" in fields:
            fields["etag"] = "W/" + fields["etag"]
        if fault.clock:
            fields["date"] = formatdate(time.time() + fault.clock, usegmt=True)
        kept = [f"{k}: {v}" for k, v in fields.items() if k not in HOP_BY_HOP and k not in ("content-length", fault.drop)]
        if first.split(" ")[1] not in ("204", "304") and fault.drop != "content-length":
            kept.append(f"Content-Length: {announced + fault.length}")
        head = "\r\n".join([first, *kept, "", ""]).encode("latin-1")
        if fault.unsorted:
            objects = re.findall(rb"<Contents>.*?</Contents>", body, re.DOTALL)
            if objects:
                in_order = sorted(objects, key=lambda text: unquote_to_bytes(text.partition(b"<Key>")[2].partition(b"<")[0]).rpartition(b"/")[2])
                at = iter(in_order)
                body = re.sub(rb"<Contents>.*?</Contents>", lambda _: next(at), body, flags=re.DOTALL)
        if fault.corrupt is not None and fault.corrupt < len(body):
            body = body[:fault.corrupt] + bytes([body[fault.corrupt] ^ 0xff]) + body[fault.corrupt + 1:]
        for cut, end in ((fault.short, self._end), (fault.reset, self._reset), (fault.stall, self._stall)):
            if cut is not None:
                await self._send(writer, b"" if cut < 0 else head + body[:cut], fault.drip)
                await end(reader, writer)
                return False
        await self._send(writer, (head + body) * (2 if fault.twice else 1), fault.drip)
        if fault.length > 0:
            await self._end(reader, writer)  # what was announced never comes
            return False
        return True

    async def _send(self, writer: asyncio.StreamWriter, text: bytes, pause: float) -> None:
        if pause == 0:
            writer.write(text)
            await writer.drain()
            return
        for i in range(len(text)):
            writer.write(text[i:i + 1])
            await writer.drain()
            await asyncio.sleep(pause)

    async def _end(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if writer.get_extra_info("ssl_object") is not None:
            writer.transport.abort()  # without TLS's own farewell: a truncation
        else:
            with contextlib.suppress(OSError):  # the client has gone
                writer.write_eof()

    async def _reset(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.02)  # what was sent is on its way before the reset overtakes it
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()

    async def _stall(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(1 << 16):
            pass


def tls_contexts(made: Certificates) -> dict[str, ssl.SSLContext]:
    contexts = {}
    for name in ("good", "expired", "elsewhere"):
        shown = getattr(made, name)
        contexts[name] = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        contexts[name].load_cert_chain(shown.cert, shown.key)
    return contexts


@contextlib.contextmanager
def fault_server(upstream: str, made: Certificates | None = None) -> Iterator[Front]:
    """Runs one on a thread of its own; with certificates it listens with TLS, too, showing each of them."""
    front: Front
    loop = asyncio.new_event_loop()
    ready, stop = threading.Event(), asyncio.Event()

    async def start() -> None:
        nonlocal front
        front = Front(upstream)
        await front.serve(tls_contexts(made) if made else {}, ready, stop)

    thread = threading.Thread(target=loop.run_until_complete, args=(start(),), daemon=True)
    thread.start()
    if not ready.wait(10):
        raise RuntimeError("the front does not start")
    try:
        yield front
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
        loop.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fixtures", type=Path)
    parser.add_argument("--clock", type=int, default=0, help="seconds that its clock is ahead, for good")
    parser.add_argument("command", nargs="+")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="shardyfusion-front-") as tmp, s3_server(options.fixtures) as server:
        made = certificates(Path(tmp))
        with fault_server(server.endpoint, made) as front:
            environment = {**os.environ, **server.environment, "SF_TEST_FRONT_ENDPOINT": front.endpoint,
                           "SF_TEST_FRONT_CLOCK": str(options.clock), "SF_TEST_CA": str(made.authority),
                           "SF_TEST_OTHER_CA": str(made.other_authority)}
            if options.clock:
                front.plan(Fault(clock=options.clock, times=-1))
            for name, endpoint in front.tls_endpoints.items():
                environment[f"SF_TEST_FRONT_TLS_{name.upper()}"] = endpoint
            return subprocess.run(options.command, env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
