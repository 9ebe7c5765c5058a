"""Databases with flipped bits and cut ends, against tools/slatedb_dump.py, which shares no code with the engine.

What a checksum covers (blocks, indexes, filters, infos) has to end in an error or in the right rows. A manifest has no
checksum: there the engine has to say what the other decoder says, refuse, or return the right rows all the same. That one
looks at key ranges and prefixes of segments only where it looks a single key up; the engine scans by them, too.
SF_DAMAGES sets how many damages each database gets.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fixtures import FIXTURES, ROOT
from shardyfusion import _native

sys.path.insert(0, str(ROOT / "tools"))
import slatedb_dump  # noqa: E402

DAMAGES = int(os.environ.get("SF_DAMAGES", "25"))
# Of codecs that the other decoder can read here: none and zlib.
CASES = [
    "0.12.1-versions", "0.12.1-wal_disabled", "0.13.1-bloom_on", "0.13.1-codec_zlib", "0.13.1-filter_two", "0.13.1-mixed",
    "0.13.1-wal_only", "0.17.0-codec_none", "0.17.0-codec_zlib", "0.17.0-many_runs", "0.17.0-segments",
]
# Codecs that it cannot read: only what a checksum covers is damaged.
CODEC_CASES = ["0.13.1-codec_lz4", "0.13.1-codec_snappy", "0.17.0-codec_zstd", "0.17.0-bloom_zstd"]
FENCE_BYTES = 10  # a WAL object this short is a fence without rows, so cutting one there is no damage

Rows = dict[bytes, bytes]


def expected_rows(case: str) -> Rows:
    lines = (FIXTURES / "slatedb" / case / "expected.jsonl").read_text().splitlines()
    return {bytes.fromhex(row["k"]): bytes.fromhex(row["v"]) for row in map(json.loads, lines)}


class Other:
    """What the other decoder makes of a database: rows by scanning, and by looking single keys up."""

    def __init__(self, db: Path) -> None:
        self.rows: Rows | None = None
        self._database = slatedb_dump.Database(db)
        try:
            self._manifest = self._database.manifest()
            self._wal = self._database.wal_ids(self._manifest, False)
            if self._manifest.raw.initialized:
                rows = self._database.visible_rows(self._manifest, self._wal)
                self.rows = {row.key: row.value for row in rows}
        except (slatedb_dump.FormatError, ValueError):
            pass

    def get(self, key: bytes) -> bytes | None:
        row = self._database.get(self._manifest, self._wal, key) if self.rows is not None else None
        return row.value if row is not None and row.kind == "put" else None

    def agrees(self, rows: Rows, right: Rows) -> bool:
        if self.rows is None:
            return False
        return rows == self.rows or all(rows.get(key) == self.get(key) for key in {*rows, *right, *self.rows})


def scanned(shard: _native.Snapshot, reverse: bool) -> Rows | None:
    """None when it fails. Whatever comes before a failure has to be in key order, too."""
    scan, rows, last = shard.scan(db_id=0, reverse=reverse), {}, None
    try:
        while batch := scan.next(97, 20).wait():
            for key, value in batch:
                assert last is None or (key < last if reverse else key > last)
                rows[key], last = value, key
    except Exception as error:
        assert str(error), repr(error)
        return None
    finally:
        scan.close()
    return rows


def got(shard: _native.Snapshot, key: bytes) -> bytes | None | Exception:
    try:
        return shard.get(0, key, 20).wait()
    except Exception as error:
        assert str(error), repr(error)
        return error


def damaged(path: Path, rng: random.Random, shortest: int) -> str:
    data = bytearray(path.read_bytes())
    if rng.random() < 0.15 and len(data) > shortest + 1:
        cut = rng.randrange(shortest + 1, len(data))
        path.write_bytes(data[:cut])
        return f"cut at {cut} of {len(data)}"
    places = [rng.randrange(len(data)) for _ in range(rng.choice((1, 1, 1, 2, 5)))]
    for place in places:
        data[place] ^= 1 << rng.randrange(8)
    path.write_bytes(data)
    return f"bits flipped at {places} of {len(data)}"


def damages(case: str, tmp_path: Path, folders: tuple[str, ...]) -> Iterator[tuple[Path, str]]:
    rng = random.Random(f"{case} {folders}")
    for number in range(DAMAGES):
        db = tmp_path / str(number)
        shutil.copytree(FIXTURES / "slatedb" / case / "db", db)
        if folders == ("manifest",):
            paths = sorted((db / "manifest").glob("*.manifest"))[-1:]
        else:
            paths = [path for folder in folders for path in sorted((db / folder).glob("*.sst")) if path.stat().st_size > 10]
        path = rng.choice(paths)
        what = damaged(path, rng, FENCE_BYTES if path.parent.name == "wal" else 0)
        yield db, f"{case}, damage {number}: {path.relative_to(db)} {what}"
        shutil.rmtree(db)


def check(db: Path, where: str, right: Rows, other: Other | None) -> str:
    """"right", "other" or "refused"."""
    outcome = "right"
    try:
        shard = _native.open_shard(str(db)).wait()
    except Exception as error:
        assert str(error), where
        return "refused"
    try:
        for reverse in (False, True):
            rows = scanned(shard, reverse)
            if rows is None:
                outcome = "refused"
            elif rows != right:
                assert other and other.agrees(rows, right), f"{where}: scan, reverse={reverse}"
                outcome = "other"
        keys = list(right)[:: max(1, len(right) // 60)]
        for key in [*keys, b"", b"\0", b"zzz", *(key + b"\0" for key in keys[:10])]:
            value = got(shard, key)
            if isinstance(value, Exception):
                outcome = "refused"
            elif value != right.get(key):
                assert other and value == other.get(key), f"{where}: get {key.hex()}"
                outcome = "other"
        return outcome
    finally:
        shard.close()


@pytest.mark.parametrize("case", CASES + CODEC_CASES)
def test_checksums_leave_no_wrong_row(case: str, tmp_path: Path) -> None:
    right = expected_rows(case)
    outcomes = [check(db, where, right, None) for db, where in damages(case, tmp_path, ("compacted", "wal"))]
    assert "refused" in outcomes  # damage was met


@pytest.mark.parametrize("case", CASES)
def test_manifests_mean_the_same_to_both_decoders(case: str, tmp_path: Path) -> None:
    right = expected_rows(case)
    outcomes = [check(db, where, right, Other(db)) for db, where in damages(case, tmp_path, ("manifest",))]
    assert "refused" in outcomes
