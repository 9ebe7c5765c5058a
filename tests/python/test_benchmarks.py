"""What `make bench` stands on without being run: the simulation of fleets is the same for a seed, and pages show the results that are there."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
MEASURED = {
    "s3": {"open/8 shards/requests": 10, "open/128 shards/requests": 130, "open/128 shards/trips": 3},
    "writing": {"publish, processor/100B/arrow": 0.5, "publish, stored/100B/arrow": 110},
}


@pytest.fixture
def results(tmp_path: Path) -> Path:
    for part, medians in MEASURED.items():
        lines = [{"name": name, "unit": "", "samples": [value]} for name, value in medians.items()]
        (tmp_path / f"{part}.json").write_text(json.dumps({"meta": {}, "results": lines}))
    return tmp_path


def run(*command: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *map(str, command)], capture_output=True, text=True, timeout=120)


def simulated(results: Path, seed: int) -> dict[str, float]:
    done = run(ROOT / "bench" / "fleet.py", "--small", "--results", results, "--seed", seed)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert len({line["name"] for line in lines}) == len(lines)
    return {line["name"]: line["samples"][0] for line in lines}


def test_a_fleet_is_the_same_for_a_seed(results: Path) -> None:
    first = simulated(results, 1)
    assert simulated(results, 1) == first
    other = simulated(results, 2)
    assert other.keys() == first.keys() and other != first


def test_a_fleet_keeps_to_its_inputs(results: Path) -> None:
    fleet = simulated(results, 1)
    assert fleet["refresh storm/20 pods, 8 shards/requests"] == 20 * (2 + 8)  # pointer, manifest, a request a shard
    assert fleet["refresh storm/1 pods, 8 shards/in step, refused"] == 0
    # S3 is never quicker than its least; a lazy reader waits for four requests, one after the other
    assert 4 * 19 <= fleet["time to first value/8 shards/lazy, p50"] <= fleet["time to first value/300 shards/as it is, p99"]
    for case in ("a look-up", "a wave of 128"):
        for share in (5, 10):
            assert fleet[f"hedged/{case}/share of {share}%, requests more"] <= share
            assert fleet[f"hedged/{case}/share of {share}%, p99"] <= fleet[f"hedged/{case}/not hedged, p99"]
    sent = {name.split("/")[1]: value for name, value in fleet.items() if name.endswith("/sent while sick")}
    assert sent["no retries"] < sent["retries"] < sent["retries, hedged without a budget"]
    assert sent["retries, hedged as built"] < 1.02 * sent["retries"]  # a store that is sick is not asked more


def test_what_second_requests_can_bring_is_bounded(monkeypatch: pytest.MonkeyPatch, results: Path) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "bench"))
    bound = importlib.import_module("hedge_bound")
    quantile, get = bound.quantile, bound.GET
    reads = bound.Reads(lambda share: quantile(get, share))
    assert (bound.p999_ms(reads.longer), 1000 * quantile(get, 0.999)) == (pytest.approx(144, abs=0.5), 144)
    p999, after, chance = bound.best(reads, 0.05, bound.p999_ms)
    assert chance * reads.longer[round(after * 10)] <= 0.05 and after == pytest.approx(1000 * quantile(get, 0.95), abs=1)
    assert 117 < p999 < 119  # with 5 % no rule takes 25 % off 144
    hedged = simulated(results, 1)["hedged/a look-up/share of 5%, p999"]
    assert hedged > 0.95 * p999  # drawn, and so not to the last percent


def test_a_fleet_wants_results(tmp_path: Path) -> None:
    done = run(ROOT / "bench" / "fleet.py", "--small", "--results", tmp_path)
    assert done.returncode != 0 and "s3.json" in done.stderr


def test_pages_show_the_results_that_are_there() -> None:
    done = run(ROOT / "bench" / "page.py", "--check")
    assert done.returncode == 0, done.stderr
