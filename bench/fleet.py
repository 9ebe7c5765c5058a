"""From one pod to ten thousand, from 8 shards to 100,000, from a gigabyte to ten terabytes: what a fleet of readers asks of S3, and what it waits for. A
simulation with a seed: the same arguments give the same lines.

    python bench/fleet.py --results bench/results [--seed 1] [--small]

What it stands on: requests and trips of opening and what publishing takes, which this machine measured (s3.json, writing.json of the results); S3's latencies
and its rate (bench/s3_latency.py); what a reader does when it is refused (include/shardyfusion/store.h). docs/scale.md says what it assumes beside them.
"""

from __future__ import annotations

import argparse
import heapq
import json
import random
import statistics
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from common import sample
from s3_latency import GET, GETS_PER_S, NOT_MODIFIED, draws, quantile

HEDGE_SHARE, HEDGE_SAVED, HEDGE_KNOWN, HEDGE_GUESS_S = 0.05, 32.0, 32, 0.05  # src/store/hedge.c
HEDGE_HISTORY, HEDGE_LATE_MOST = (1 << 64) - 1, 16
AT_ONCE = 256  # requests of one reader, and shards that it opens at a time
RETRIES, BACKOFF_S, BACKOFF_CAP_S, REFUSAL_S = 5, 0.2, 4.0, 0.01
POLL_S, JITTER, POLLS = 30.0, 0.1, 120  # a fleet that began in step an hour ago
GET_DOLLARS, PUT_DOLLARS, MONTH_S, STORED_DOLLARS_GB = 0.4e-6, 5e-6, 30 * 86400, 0.023
ROW_BYTES, BLOCK_BYTES = 100, 4096
UPLOAD_BYTES_PER_S = 1.8e9  # of one machine, 64 streams
SIMULATED_MOST = 40_000  # requests; a larger fleet is a smaller one before a store that is smaller by as much
TOLD_MOST = 6_000_000  # beyond it only how long S3 takes for so many


@dataclass(frozen=True)
class Measured:
    """What opening takes: `trips` one after the other, of them the last with a request a shard or several."""

    trips: int
    base_requests: float
    requests_a_shard: float
    rows_a_cpu_second: float
    stored_share: float  # stored bytes over those of the rows

    def requests(self, shards: int) -> int:
        return round(self.base_requests + self.requests_a_shard * shards)


def read_results(folder: Path) -> Measured:
    samples: dict[str, list[float]] = {}
    for file in ("s3", "writing"):
        for result in json.loads((folder / f"{file}.json").read_text())["results"]:
            samples[result["name"]] = result["samples"]

    def of(name: str) -> float:
        return statistics.median(samples[name])

    few, many = of("open/8 shards/requests"), of("open/128 shards/requests")
    each = (many - few) / 120
    return Measured(
        round(of("open/128 shards/trips")), few - 8 * each, each, 1e6 / of("publish, processor/100B/arrow"),
        of("publish, stored/100B/arrow") / ROW_BYTES)


# ---------------------------------------------------------------- one reader


@dataclass
class Hedges:
    """The second requests of one reader, as src/store/hedge.c decides them: requests earn a share of one, and it goes out when the first one is later than
    all but that share. Before 32 answers have come nothing is known; the first fan-out is looked at when 50 ms have passed."""

    share: float = HEDGE_SHARE
    tokens: float = 0.0
    answered: int = 0
    sent: int = 0

    def all(self, count: int, draw: Callable[[], float]) -> list[float]:
        """Seconds that each of so many takes that go out together."""
        self.tokens = min(HEDGE_SAVED, self.tokens + count * self.share)
        firsts = [draw() for _ in range(count)]
        after = quantile(GET, 1 - self.share) if self.answered >= HEDGE_KNOWN else HEDGE_GUESS_S
        known = self.answered + sum(first <= after for first in firsts) >= HEDGE_KNOWN
        self.answered += count
        return [self._second(first, after, draw) if known and first > after else first for first in firsts]

    def _second(self, first: float, after: float, draw: Callable[[], float]) -> float:
        if self.tokens < 1:
            return first
        self.tokens -= 1
        self.sent += 1
        return min(first, after + draw())

    def hedged(self, draw: Callable[[], float]) -> Callable[[], float]:
        """One by one."""
        return lambda: self.all(1, draw)[0]


def wave(count: int, draw: Callable[[], float], hedges: Hedges | None = None, at_once: int = AT_ONCE) -> float:
    """Seconds until `count` requests are answered. Many take what S3's rate or so many at once take."""
    if count <= at_once:
        return max(hedges.all(count, draw) if hedges else (draw() for _ in range(count)), default=0.0)
    draw = hedges.hedged(draw) if hedges else draw
    if count > 10 * at_once:
        mean = statistics.fmean(draw() for _ in range(1_000))
        return count / min(GETS_PER_S, at_once / mean) + max(draw() for _ in range(at_once))
    busy = [draw() for _ in range(at_once)]
    heapq.heapify(busy)
    for _ in range(count - at_once):
        heapq.heapreplace(busy, busy[0] + draw())
    return max(busy)


def opening_s(measured: Measured, shards: int, draw: Callable[[], float], hedges: Hedges | None = None) -> float:
    """Pointer, manifest, which are not hedged, then what is left, level by level; and a look-up."""
    levels = measured.trips - 2
    each = [max(1, round(measured.requests_a_shard * shards / levels))] * levels
    return draw() + draw() + sum(wave(count, draw, hedges) for count in each) + wave(1, draw, hedges)


def tell_times(path: str, case: str, who: str, times: list[float]) -> None:
    ordered = sorted(times)
    for name, share in (("p50", 0.5), ("p99", 0.99)):
        sample(path, case, f"{who}, {name}", "ms", ordered[min(len(ordered) - 1, int(share * len(ordered)))] * 1e3)


def one_reader(measured: Measured, shards: Iterable[int], trials: int, seed: int) -> None:
    for count in shards:
        trials_here = max(20, min(trials, trials * 128 // count))
        for who, make in (("as it is", lambda: None), ("hedged", Hedges)):
            draw = draws(seed)
            tell_times("time to first value", f"{count} shards", who, [opening_s(measured, count, draw, make()) for _ in range(trials_here)])
        draw = draws(seed)
        tell_times("time to first value", f"{count} shards", "lazy", [draw() + draw() + draw() + draw() for _ in range(trials)])


def tails(trials: int, seed: int) -> None:
    """One reader that has known its store for long: look-ups one by one, and 128 in a wave."""
    for share in (0.0, 0.05, 0.1):
        who = f"share of {share:.0%}" if share else "not hedged"
        for case, count, times in (("a look-up", 1, trials), ("a wave of 128", 128, trials // 50)):
            draw = draws(seed)
            hedges = Hedges(share, answered=HEDGE_KNOWN) if share else None
            took = sorted(wave(count, draw, hedges) for _ in range(times))
            for name, at in (("p50", 0.5), ("p99", 0.99), ("p999", 0.999)):
                sample("hedged", case, f"{who}, {name}", "ms", took[int(at * times)] * 1e3)
            sample("hedged", case, f"{who}, mean", "ms", statistics.fmean(took) * 1e3)
            sample("hedged", case, f"{who}, requests more", "%", 100 * hedges.sent / (times * count) if hedges else 0.0)


# ---------------------------------------------------------------- a fleet before one store


@dataclass
class Store:
    """Takes so many requests a second, with a second's worth in reserve, and refuses the rest at once."""

    rate: float
    draw: Callable[[], float]
    sick: tuple[float, float, float, float] = (0.0, 0.0, 1.0, 1.0)  # from, until, share of the rate, times the latency
    tokens: float = -1.0
    last: float = 0.0
    sent: Counter[int] = field(default_factory=Counter)  # by second
    refused: int = 0

    def ask(self, now: float) -> float | None:
        """When it answers; None: it refuses."""
        begin, end, share, times = self.sick
        ill = begin <= now < end
        rate = self.rate * (share if ill else 1)
        self.tokens = min(rate, (self.rate if self.tokens < 0 else self.tokens) + (now - self.last) * rate)
        self.last = now
        self.sent[int(now)] += 1
        if self.tokens < 1:
            self.refused += 1
            return None
        self.tokens -= 1
        return now + self.draw() * (times if ill else 1)


def back_off(attempt: int, rng: random.Random) -> float:
    return REFUSAL_S + rng.random() * min(BACKOFF_CAP_S, BACKOFF_S * 2 ** min(attempt, 10))


@dataclass
class Pod:
    begin: float
    waves: list[int]
    left: int = 0  # of this wave, not sent yet
    under_way: int = 0
    end: float = 0.0
    gave_up: bool = False  # a reader would have, and begun anew at its next poll


def storm(store: Store, pods: list[Pod], rng: random.Random) -> list[float]:
    """Seconds that each pod takes. A request that is refused is sent again for as long as it takes, and the pod is marked when that is
    more often than a reader does."""
    events: list[tuple[float, int, int, int]] = []  # when, order, pod, attempt; -1: an answer
    order = 0

    def push(when: float, pod: int, attempt: int) -> None:
        nonlocal order
        order += 1
        heapq.heappush(events, (when, order, pod, attempt))

    def go_on(number: int, now: float) -> None:
        pod = pods[number]
        if pod.left == pod.under_way == 0:
            if not pod.waves:
                pod.end = now
                return
            pod.left = pod.waves.pop(0)
        while pod.left and pod.under_way < AT_ONCE:
            pod.left -= 1
            pod.under_way += 1
            push(now, number, 0)

    starts = sorted(range(len(pods)), key=lambda n: pods[n].begin)
    at = 0
    while events or at < len(starts):
        if at < len(starts) and (not events or pods[starts[at]].begin <= events[0][0]):
            go_on(starts[at], pods[starts[at]].begin)
            at += 1
            continue
        now, _, number, attempt = heapq.heappop(events)
        if attempt < 0:
            pods[number].under_way -= 1
            go_on(number, now)
            continue
        answer = store.ask(now)
        if answer is not None:
            push(answer, number, -1)
        else:
            pods[number].gave_up |= attempt >= RETRIES
            push(now + back_off(attempt, rng), number, attempt + 1)
    return [pod.end - pod.begin for pod in pods]


def refreshes(measured: Measured, fleets: Iterable[int], shards: Iterable[int], seed: int) -> None:
    """A new snapshot of which all shards changed. Every pod finds it at its next poll."""
    for count in shards:
        levels = measured.trips - 2
        each = max(1, round(measured.requests_a_shard * count / levels))
        for fleet in fleets:
            case, total = f"{fleet} pods, {count} shards", fleet * (2 + each * levels)
            sample("refresh storm", case, "requests", "requests", total)
            sample("refresh storm", case, "at S3's rate", "s", total / GETS_PER_S)
            if total > TOLD_MOST:
                continue
            smaller = max(1.0, total / SIMULATED_MOST)
            pods = max(2, round(fleet / smaller)) if fleet > 1 else 1
            for who, jitter in (("in step", 0.0), (f"jitter {JITTER:.0%}", JITTER)):
                rng = random.Random(seed)
                starts = [rng.random() + sum(POLL_S * (1 + rng.uniform(-jitter, jitter)) for _ in range(POLLS)) % POLL_S for _ in range(pods)]
                store = Store(GETS_PER_S / smaller, draws(seed))
                asking = [Pod(begin % POLL_S, [1, 1, *[each] * levels]) for begin in starts]
                times = storm(store, asking, rng)
                sample("refresh storm", case, f"{who}, most a second", "requests/s", max(store.sent.values()) * smaller)
                sample("refresh storm", case, f"{who}, refused", "%", 100 * store.refused / sum(store.sent.values()))
                sample("refresh storm", case, f"{who}, pods that give up once", "%", 100 * sum(pod.gave_up for pod in asking) / pods)
                tell_times("refresh storm", case, who, times)


# ---------------------------------------------------------------- a store that is sick


def sick(policies: Iterable[str], seconds: float, rate: float, seed: int) -> None:
    """Cold look-ups at 4,000 a second; from 20 s to 50 s the store takes an eighth of its rate, and four times as long. A tenth of all that is simulated, as
    of one reader. "As built" looks for signs of sickness as src/store/hedge.c does."""
    after, deadline = quantile(GET, 1 - HEDGE_SHARE), 30.0
    begin, end = seconds * 0.2, seconds * 0.5
    for policy in policies:
        rng = random.Random(seed)
        store = Store(GETS_PER_S / 10, draws(seed), (begin, end, 0.125, 4.0))
        retries = 0 if policy == "no retries" else RETRIES
        hedge, built = "hedged" in policy, "as built" in policy
        tokens, late, trouble = 0.0, 0, 0
        events = [(rng.random() * seconds, n, 0, True) for n in range(int(rate * seconds / 10))]
        started = {n: when for when, n, _, _ in events}
        best: dict[int, float] = {}
        failed: set[int] = set()
        heapq.heapify(events)
        while events:
            now, n, attempt, first = heapq.heappop(events)
            if n in best and best[n] <= now:
                continue  # the hedge comes too late
            if not first and built:
                if trouble or late.bit_count() > HEDGE_LATE_MOST or tokens < 1:
                    continue
                tokens -= 1
            answer = store.ask(now)
            trouble = (trouble << 1 | (answer is None)) & HEDGE_HISTORY
            if first:
                tokens = min(HEDGE_SAVED, tokens + HEDGE_SHARE)
                late = (late << 1 | (answer is not None and answer - now > after)) & HEDGE_HISTORY
            if answer is not None:
                best[n] = min(best.get(n, answer), answer)
                failed.discard(n)
            elif attempt < retries and first and now - started[n] < deadline:
                heapq.heappush(events, (now + back_off(attempt, rng), n, attempt + 1, True))
            elif n not in best:
                failed.add(n)
            if hedge and first and (answer is None or answer - now > after):
                heapq.heappush(events, (now + after, n, attempt, False))
        then = [n for n, when in started.items() if begin <= when < end]
        sample("sick store", policy, "sent while sick", "requests/s", 10 * sum(store.sent[s] for s in range(int(begin), int(end))) / (end - begin))
        sample("sick store", policy, "look-ups that fail", "%", 100 * sum(n in failed for n in then) / len(then))
        took = {n: best[n] - started[n] for n in best}
        tell_times("sick store", policy, "while sick", [took[n] for n in then if n in took] or [deadline])
        slow = [started[n] for n, t in took.items() if started[n] >= end and t > 1.0]
        sample("sick store", policy, "slow look-ups end after", "s", max(slow, default=end) - end)


# ---------------------------------------------------------------- arithmetic


def sizes(measured: Measured) -> None:
    """Memory, publishing and storage by the size of the data; shards of a gigabyte, 8 at least."""
    for gb in (1, 10, 100, 1_000, 10_000):
        rows, shards = gb * 1e9 / ROW_BYTES, min(100_000, max(8, gb))
        case = f"{gb} GB"
        sample("size", case, "shards", "shards", shards)
        sample("size", case, "filters and indexes", "GB", rows * 2 / 1e9)  # 10 bits a key, and an entry of some 28 bytes a block of 37 rows
        for machines in (1, 10, 100):
            cores = 8 * machines
            build = rows / (measured.rows_a_cpu_second * cores)
            upload = gb * 1e9 * measured.stored_share / (UPLOAD_BYTES_PER_S * machines)
            sample("size", case, f"publishing, {machines} machines", "s", max(build, upload))
        puts = gb * 1e9 * measured.stored_share / (8 << 20) + 4 * shards
        sample("size", case, "dollars of publishing", "$", puts * PUT_DOLLARS)
        sample("size", case, "dollars of storing a month", "$", gb * measured.stored_share * STORED_DOLLARS_GB)


def money(measured: Measured) -> None:
    """Dollars a month: 24 snapshots a day of which all shards change, a poll every 30 s, and cold look-ups."""
    for fleet in (1, 10, 100, 1_000, 10_000):
        polls = fleet * MONTH_S / POLL_S * GET_DOLLARS
        sample("dollars a month", f"{fleet} pods", "polling", "$", polls)
        for shards in (8, 128, 1_000):
            sample("dollars a month", f"{fleet} pods", f"opening {shards} shards", "$", fleet * 30 * 24 * measured.requests(shards) * GET_DOLLARS)
        sample("dollars a month", f"{fleet} pods", "1 cold look-up a second and pod", "$", fleet * MONTH_S * GET_DOLLARS)
        sample("dollars a month", f"{fleet} pods", "cold look-ups a second and pod that S3 takes", "1/s", GETS_PER_S / fleet)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--small", action="store_true", help="a fleet that takes a second to simulate")
    args = parser.parse_args()
    measured = read_results(args.results)
    policies = ("no retries", "retries", "retries, hedged without a budget", "retries, hedged as built")
    sample("fleet", "poll", "p50", "ms", quantile(NOT_MODIFIED, 0.5) * 1e3)
    if args.small:
        one_reader(measured, (8, 300), 50, args.seed)
        tails(2_000, args.seed)
        refreshes(measured, (1, 20), (8,), args.seed)
        sick(policies, 10, 2_000, args.seed)
    else:
        one_reader(measured, (8, 128, 1_000, 10_000, 100_000), 2_000, args.seed)
        tails(100_000, args.seed)
        refreshes(measured, (1, 10, 100, 1_000, 10_000), (8, 128, 1_000), args.seed)
        sick(policies, 100, 4_000, args.seed)
    sizes(measured)
    money(measured)


main()
