"""A PostgreSQL of our own for tests: a cluster in a folder, on a free port of loopback, run by a user without rights."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ports import free_port

PASSWORD = "s3cret+pass"  # tests look for it in messages
USER = "shardy"
_QUICK = {"fsync": "off", "full_page_writes": "off", "autovacuum": "off", "shared_buffers": "16MB", "max_connections": "40"}


def _programs() -> Path:
    """Debian keeps them beside one another, off the path."""
    found = shutil.which("initdb")
    if found:
        return Path(found).resolve().parent
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
    if not folders:
        raise RuntimeError("PostgreSQL is not installed: tools/install.sh test brings it")
    return folders[-1]


class PostgresServer:
    """Started by its constructor. `stop()` removes it."""

    def __init__(self) -> None:
        self.folder = tempfile.mkdtemp(prefix="shardyfusion-pg-")
        self.data = os.path.join(self.folder, "data")
        self.log = os.path.join(self.folder, "log")
        self.port = free_port()
        self._programs = _programs()
        self._as_user: dict[str, Any] = {}
        if os.geteuid() == 0:  # which PostgreSQL refuses
            self._as_user = {"user": "nobody", "group": "nogroup", "extra_groups": []}
            shutil.chown(self.folder, "nobody", "nogroup")
        password_file = os.path.join(self.folder, "password")
        Path(password_file).write_text(PASSWORD)
        os.chmod(password_file, 0o644)
        self._run(
            "initdb", "-D", self.data, "-U", USER, "--pwfile", password_file, "-A", "md5", "-E", "UTF8", "--no-locale",
            "--no-sync", "--no-instructions",
        )  # fmt: skip
        settings = {**_QUICK, "listen_addresses": "127.0.0.1", "port": str(self.port), "unix_socket_directories": self.folder}
        with open(os.path.join(self.data, "postgresql.conf"), "a") as conf:
            conf.writelines(f"{name} = '{value}'\n" for name, value in settings.items())
        self.start()

    def _run(self, program: str, *args: str) -> None:
        subprocess.run(
            [str(self._programs / program), *args], check=True, stdout=subprocess.DEVNULL, cwd=self.folder, env={"LC_ALL": "C"},
            **self._as_user,
        )  # fmt: skip

    def start(self) -> None:
        """As pg_ctl does, which looks ten times per second only whether it is done."""
        with open(self.log, "a") as log:
            self._process = subprocess.Popen(
                [str(self._programs / "postgres"), "-D", self.data], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                cwd=self.folder, env={"LC_ALL": "C"}, **self._as_user,
            )  # fmt: skip
        wait_for(self._is_ready)

    def _is_ready(self) -> bool:
        if self._process.poll() is not None:
            raise RuntimeError(f"PostgreSQL has ended: {Path(self.log).read_text()}")
        try:
            lines = Path(self.data, "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return False
        # the file is there before its lines are
        return bool(lines) and lines[0] == str(self._process.pid) and lines[-1].startswith("ready")

    def kill(self) -> None:
        """As a machine that loses power."""
        self._process.send_signal(signal.SIGQUIT)
        self._process.wait()

    def pause(self) -> list[int]:
        """Nothing of it runs any more, and every connection stays open."""
        pid = self._process.pid
        os.kill(pid, signal.SIGSTOP)  # first, so that it starts no others
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        for child in map(int, children):
            with suppress(ProcessLookupError):  # a backend whose client has just gone
                os.kill(child, signal.SIGSTOP)
        return [pid, *map(int, children)]

    def go_on(self, paused: list[int]) -> None:
        for pid in paused:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    def stop(self) -> None:
        try:
            self.kill()
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)

    def url(self, database: str = "postgres", password: str = PASSWORD, port: int | None = None, **options: str) -> str:
        query = "&".join(f"{name}={value}" for name, value in options.items())
        return f"postgresql://{USER}:{password.replace('+', '%2B')}@127.0.0.1:{port or self.port}/{database}?{query}"

    @contextmanager
    def losing_a_commit(self) -> Iterator[int]:
        """A port in front of the server's: the first COMMIT goes on to the server, and its client is cut off at once."""
        listener = socket.create_server(("127.0.0.1", 0))
        ends: list[socket.socket] = [listener]
        lost = threading.Event()

        def pump(source: socket.socket, sink: socket.socket, client: socket.socket) -> None:
            with suppress(OSError):
                while data := source.recv(65536):
                    sink.sendall(data)
                    if source is client and b"COMMIT\0" in data and not lost.is_set():
                        lost.set()
                        client.shutdown(socket.SHUT_RDWR)
                        return  # the server goes on, as when the network between the two is gone
                sink.shutdown(socket.SHUT_WR)

        def accept() -> None:
            with suppress(OSError):
                while True:
                    client, _ = listener.accept()
                    server = socket.create_connection(("127.0.0.1", self.port))
                    ends.extend((client, server))
                    for pair in ((client, server), (server, client)):
                        threads.append(threading.Thread(target=pump, args=(*pair, client)))
                        threads[-1].start()

        threads = [threading.Thread(target=accept)]
        threads[0].start()
        try:
            yield listener.getsockname()[1]
        finally:
            for end in ends:
                with suppress(OSError):  # it has been cut off already
                    end.shutdown(socket.SHUT_RDWR)
            for thread in threads:
                thread.join()
            for end in ends:
                end.close()
        assert lost.is_set()


def wait_for(condition: Any, seconds: float = 20.0) -> None:
    ends_at = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends_at
        time.sleep(0.01)


def main() -> int:
    """postgres_server.py COMMAND...: runs it with the server's URL in SF_POSTGRES_URL."""
    server = PostgresServer()
    try:
        return subprocess.run(sys.argv[1:], env={**os.environ, "SF_POSTGRES_URL": server.url()}, check=False).returncode
    finally:
        server.stop()


if __name__ == "__main__":
    sys.exit(main())
