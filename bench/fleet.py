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


def wave(count: int, draw: Callable[[], float], at_once: int = AT_ONCE) -> float:
    """Seconds until `count` requests are answered. Many take what S3's rate or so many at once take."""
    if count <= at_once:
        return max((draw() for _ in range(count)), default=0.0)
    if count > 10 * at_once:
        mean = statistics.fmean(draw() for _ in range(1_000))
        return count / min(GETS_PER_S, at_once / mean) + max(draw() for _ in range(at_once))
    busy = [draw() for _ in range(at_once)]
    heapq.heapify(busy)
    for _ in range(count - at_once):
        heapq.heapreplace(busy, busy[0] + draw())
    return max(busy)


def hedged(draw: Callable[[], float], after: float) -> Callable[[], float]:
    """A second request goes out when the first one has taken so long."""

    def one() -> float:
        first = draw()
        return first if first <= after else min(first, after + draw())

    return one


def opening_s(measured: Measured, shards: int, draw: Callable[[], float]) -> float:
    """Pointer, manifest, then what is left, level by level."""
    levels = measured.trips - 2
    each = [max(1, round(measured.requests_a_shard * shards / levels))] * levels
    return draw() + draw() + sum(wave(count, draw) for count in each)


def tell_times(path: str, case: str, who: str, times: list[float]) -> None:
    ordered = sorted(times)
    for name, share in (("p50", 0.5), ("p99", 0.99)):
        sample(path, case, f"{who}, {name}", "ms", ordered[min(len(ordered) - 1, int(share * len(ordered)))] * 1e3)


def one_reader(measured: Measured, shards: Iterable[int], trials: int, seed: int) -> None:
    p90 = quantile(GET, 0.9)
    for count in shards:
        trials_here = max(20, min(trials, trials * 128 // count))
        for who, make in (("as it is", lambda d: d), ("hedged", lambda d: hedged(d, p90))):
            draw = make(draws(seed))
            tell_times("time to first value", f"{count} shards", who, [opening_s(measured, count, draw) + draw() for _ in range(trials_here)])
        draw = draws(seed)
        tell_times("time to first value", f"{count} shards", "lazy", [draw() + draw() + draw() + draw() for _ in range(trials)])


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
    """Cold look-ups at 4,000 a second; from 20 s to 50 s the store takes an eighth of its rate, and four times as long. A tenth of all that is simulated."""
    after, deadline = quantile(GET, 0.9), 30.0
    begin, end = seconds * 0.2, seconds * 0.5
    for policy in policies:
        rng = random.Random(seed)
        store = Store(GETS_PER_S / 10, draws(seed), (begin, end, 0.125, 4.0))
        retries = 0 if policy == "no retries" else RETRIES
        hedge, budget, credit = "hedged" in policy, 0.05 if "5 %" in policy else 1e9, 0.0
        events = [(rng.random() * seconds, n, 0, True) for n in range(int(rate * seconds / 10))]
        started = {n: when for when, n, _, _ in events}
        best: dict[int, float] = {}
        failed: set[int] = set()
        heapq.heapify(events)
        while events:
            now, n, attempt, first = heapq.heappop(events)
            if n in best and best[n] <= now:
                continue  # the hedge comes too late
            answer = store.ask(now)
            credit = min(credit + budget * first, 100.0)
            if answer is not None:
                best[n] = min(best.get(n, answer), answer)
                failed.discard(n)
            elif attempt < retries and first and now - started[n] < deadline:
                heapq.heappush(events, (now + back_off(attempt, rng), n, attempt + 1, True))
            elif n not in best:
                failed.add(n)
            if hedge and first and (answer is None or answer - now > after) and credit >= 1:
                credit -= 1
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
    policies = ("no retries", "retries", "retries, hedged without a budget", "retries, hedged, at most 5 %")
    sample("fleet", "poll", "p50", "ms", quantile(NOT_MODIFIED, 0.5) * 1e3)
    if args.small:
        one_reader(measured, (8, 300), 50, args.seed)
        refreshes(measured, (1, 20), (8,), args.seed)
        sick(policies, 10, 2_000, args.seed)
    else:
        one_reader(measured, (8, 128, 1_000, 10_000, 100_000), 2_000, args.seed)
        refreshes(measured, (1, 10, 100, 1_000, 10_000), (8, 128, 1_000), args.seed)
        sick(policies, 100, 4_000, args.seed)
    sizes(measured)
    money(measured)


main()
