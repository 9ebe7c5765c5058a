"""A server under gunicorn, which ends in peace."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def gunicorn(*arguments: str | Path, cwd: Path, log: Path, env: Mapping[str, str] | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """Whose words go to `log`. At the end it is told to go, and must leave with 0; when the block fails it is killed."""
    with log.open("w") as out:
        server = subprocess.Popen(
            [sys.executable, "-W", "ignore::DeprecationWarning", "-m", "gunicorn", "--no-control-socket", *arguments],
            cwd=cwd, env=env, stdout=out, stderr=out)  # fmt: skip
    try:
        yield server
        server.send_signal(signal.SIGTERM)
        assert server.wait(60) == 0, log.read_text()
    finally:
        if server.poll() is None:
            server.kill()
            server.wait()
