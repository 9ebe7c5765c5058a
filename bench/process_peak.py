"""The most memory that other processes had."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path


class Peak:
    """Inside of a `with`: the largest resident size, without memory shared with others (`Rss` but `RssShmem`), of the processes of whose command
    line `is_one` says so; looked at twenty times a second."""

    def __init__(self, is_one: Callable[[bytes], bool]) -> None:
        self._is_one = is_one
        self.kib = 0
        self._end = threading.Event()

    def __enter__(self) -> Peak:
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._end.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._end.wait(0.05):
            for folder in Path("/proc").glob("[0-9]*"):
                try:
                    if not self._is_one((folder / "cmdline").read_bytes()):
                        continue
                    status = dict(line.split(":", 1) for line in (folder / "status").read_text().splitlines() if ":" in line)
                except OSError:  # it has ended
                    continue
                sizes = [int(status[name].split()[0]) for name in ("RssAnon", "RssFile") if name in status]
                self.kib = max(self.kib, sum(sizes))
