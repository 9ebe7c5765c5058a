"""Free ports of loopback for servers that want to be told theirs."""

from __future__ import annotations

import random
import socket


def free_port() -> int:
    """Below those that Linux gives to whoever asks for any: between this call and the server's start, nobody else gets it."""
    for port in random.SystemRandom().sample(range(10_000, 32_768), 1000):
        with socket.socket() as s:
            try:
                s.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise RuntimeError("no port of loopback is free")
