"""How long S3 takes to answer, as measured by others, and draws from that. Seconds.

A GET of 4 KiB from a machine in the same region: the slower of two runs that slatedb-benchmark publishes (results/transfer-capacity/s3: p50 25, p90 46,
p99 98, p999 144 ms; the other run has p90 32, p99 77). A GET that finds nothing new: p50 10, p90 17 ms (turbopuffer's page of trade-offs). The ends are ours:
nobody publishes them.
"""

from __future__ import annotations

import bisect
import random
from collections.abc import Callable

GET = ((0.0, 0.019), (0.5, 0.025), (0.9, 0.0465), (0.99, 0.098), (0.999, 0.144), (1.0, 0.250))
NOT_MODIFIED = ((0.0, 0.007), (0.5, 0.010), (0.9, 0.017), (0.99, 0.040), (1.0, 0.100))
CONNECTION_BYTES_PER_S = 80e6  # of one connection, once bytes come (Quickwit; AWS says 85 to 90 MB/s)
GETS_PER_S = 5500  # of one partition of a prefix, at least (AWS); beyond it answers 503


def quantile(distribution: tuple[tuple[float, float], ...], share: float) -> float:
    """Straight lines between what is known."""
    at = min(bisect.bisect_right(distribution, (share, float("inf"))), len(distribution) - 1)
    (low, a), (high, b) = distribution[at - 1], distribution[at]
    return a + (b - a) * (share - low) / (high - low)


def draws(seed: int, distribution: tuple[tuple[float, float], ...] = GET) -> Callable[[], float]:
    """A function that draws one latency after the other; the same ones for a seed."""
    uniform = random.Random(seed).random
    return lambda: quantile(distribution, uniform())
