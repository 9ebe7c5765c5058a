"""From Python to the program."""

from __future__ import annotations

import os
import signal
import sys

PROGRAM = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "shardy")


def main() -> None:
    """Run `shardy` with the arguments of this process, which it takes the place of."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # Python ignores it, and programs inherit that
    os.environ.setdefault("SHARDY_PYTHON", sys.executable)  # for files that Python reads
    try:
        os.execv(PROGRAM, ["shardy", *sys.argv[1:]])
    except OSError as e:
        sys.exit(f"shardy: the program of this installation cannot be started: {PROGRAM}: {e.strerror}")
