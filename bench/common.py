"""What the programs here share: the form of results, which keys are asked for, and the data set that bench/lookups.c describes."""

from __future__ import annotations

import json
import random
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
HOT = 10_000
M64 = (1 << 64) - 1


def sample(path: str, case: str, who: str, unit: str, *values: float) -> None:
    """A line of JSON on standard output, as bench/bench.h makes them."""
    print(json.dumps({"name": f"{path}/{case}/{who}", "unit": unit, "samples": [float(f"{v:.6g}") for v in values]}), flush=True)


def tell(text: str) -> None:
    """For whoever watches."""
    print(text, file=sys.stderr, flush=True)


def mix(z: int) -> int:
    z = (z + 0x9E3779B97F4A7C15) & M64
    z = ((z ^ z >> 30) * 0xBF58476D1CE4E5B9) & M64
    z = ((z ^ z >> 27) * 0x94D049BB133111EB) & M64
    return z ^ z >> 31


def keys_of(distribution: str, rows: int, count: int, seed: int = 1) -> list[int]:
    """Even numbers below 2 * rows, or, `absent`, odd ones."""
    rng = random.Random(seed)
    if distribution == "hot":
        return [2 * (mix(rng.randrange(HOT)) % rows) for _ in range(count)]
    if distribution == "zipf":  # exponent 0.99; the rank of a key says nothing of it
        s, low = 0.01, 0.5**0.01
        span = (rows + 0.5) ** s - low
        ranks = (int((rng.random() * span + low) ** (1 / s) - 0.5) for _ in range(count))
        return [2 * (mix(min(rank, rows - 1)) % rows) for rank in ranks]
    odd = int(distribution == "absent")
    return [2 * rng.randrange(rows) + odd for _ in range(count)]


def begins_with(value: bytes | None, key: int) -> bool:
    return value is not None and value[:8] == key.to_bytes(8, "little")


class Clocks:
    """Nanoseconds by the wall, and of this thread's processor time, since it was made."""

    def __init__(self) -> None:
        self._wall, self._cpu = time.perf_counter_ns(), time.thread_time_ns()

    def stop(self) -> tuple[int, int]:
        return time.perf_counter_ns() - self._wall, time.thread_time_ns() - self._cpu


def in_turn(rounds: int, ways: dict[str, Callable[[], object]]) -> Iterator[tuple[str, int, int]]:
    """Runs the ways in turn, after a round that does not count. Gives each one's nanoseconds, by the wall and by the processor."""
    for round in range(rounds + 1):
        for who, run in ways.items():
            clocks = Clocks()
            run()
            wall, cpu = clocks.stop()
            if round:
                yield who, wall, cpu
