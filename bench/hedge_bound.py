"""What a share of second requests can bring at best, by arithmetic, beside what is built (`tests/unit/store/hedge_test`, "the_tail_is_cut").

    python bench/hedge_bound.py

A read takes T, of distribution F, whenever it is asked for. A second request goes out d after the first one, with probability q, if no answer has come by then:
the read is later than t with probability (1 - F(t)) (1 - q F(t - d)), and q (1 - F(d)) requests more are made. Of all rules that spend as much none has a lower
quantile than the best d and q (Kaler, He, Elnikety: Optimal Reissue Policies for Reducing Tail Latency, SPAA 2017), so what this prints is the bound where answers do not depend on each other.
Between the quantiles that are known of S3 any curve is a guess: in straight lines, as `s3_latency.py` and with it everything here replays it; in straight lines of the logarithm of
the share that takes longer, as tails fall that have no steps; and a log-normal one through p50 and p99. The mean tells which is nearer: 30.1 ms were published.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from s3_latency import GET, quantile

STEPS = 20_000  # draws of the arithmetic, at evenly spread quantiles
WAVE = 128
SHARES = (0.05, 0.075, 0.1)


def falling(share: float) -> float:
    """As s3_latency.quantile(), with lines between the logarithms of what takes longer."""
    at = next((i for i, (known, _) in enumerate(GET) if known > share), len(GET) - 1)
    (low, a), (high, b) = GET[at - 1], GET[at]
    longer = [math.log(max(1 - known, 1e-5)) for known in (low, high)]
    return a + (b - a) * (math.log(max(1 - share, 1e-5)) - longer[0]) / (longer[1] - longer[0])


def log_normal(share: float) -> float:
    """Through p50 and p99: by halving, since Python has no inverse."""
    sigma, low, high = math.log(98 / 25) / 2.3263479, -10.0, 10.0
    for _ in range(50):
        at = (low + high) / 2
        low, high = (at, high) if math.erfc(-at / math.sqrt(2)) / 2 < share else (low, at)
    return 0.025 * math.exp(sigma * low)


class Reads:
    """F on a grid of tenths of a millisecond, up to half a second."""

    def __init__(self, draw: Callable[[float], float]) -> None:
        self.longer = [0.0] * 5001  # 1 - F
        took = sorted(draw((i + 0.5) / STEPS) for i in range(STEPS))
        self.mean_ms = 1e3 * sum(took) / STEPS
        at = 0
        for tenth in range(len(self.longer)):
            while at < STEPS and took[at] * 1e4 <= tenth:
                at += 1
            self.longer[tenth] = (STEPS - at) / STEPS

    def hedged(self, after: int, chance: float) -> list[float]:
        return [p if t < after else p * (1 - chance * (1 - self.longer[t - after])) for t, p in enumerate(self.longer)]


def p999_ms(longer: list[float]) -> float:
    return next(t for t, p in enumerate(longer) if p <= 0.001) / 10


def wave_ms(longer: list[float]) -> float:
    """The mean of the slowest of WAVE."""
    return sum(1 - (1 - p) ** WAVE for p in longer) / 10


def best(reads: Reads, share: float, what: Callable[[list[float]], float]) -> tuple[float, float, float]:
    """The least that any trigger brings, that trigger in ms, and the chance that spends the share."""
    tried = []
    for after in range(10, 2000, 5):
        if reads.longer[after] == 0:
            break
        chance = min(1.0, share / reads.longer[after])
        tried.append((what(reads.hedged(after, chance)), after / 10, chance))
    return min(tried)


def main() -> None:
    for name, draw in (("straight lines", lambda share: quantile(GET, share)), ("falling", falling), ("log-normal", log_normal)):
        reads = Reads(draw)
        p999, wave = p999_ms(reads.longer), wave_ms(reads.longer)
        print(f"{name}: mean {reads.mean_ms:.1f} ms; not hedged: p999 {p999:.1f} ms, a wave of {WAVE} {wave:.1f} ms")
        for share in SHARES:
            (least, after, chance), (least_wave, after_wave, _) = best(reads, share, p999_ms), best(reads, share, wave_ms)
            print(f"  share {share}: p999 {least:.1f} ms, {100 * least / p999 - 100:.0f} %, after {after:.0f} ms with probability {chance:.2f}; "
                  f"wave {least_wave:.1f} ms, {100 * least_wave / wave - 100:.0f} %, after {after_wave:.0f} ms")


if __name__ == "__main__":
    main()
