"""Read databases that this project built with the real wheel on the path; exit with a message at the first difference.

    PYTHONPATH=<folder of a slatedb wheel> python read_shards.py MODE < cases
MODE: reader (newest state), checkpoint, write (open read-write, change, reopen), compact (write until the engine has
merged the run that we built into one of its own).
cases: JSON, a list of {"name", "path", "checkpoint", "rows", "absent"}; `rows` names a file of u32le key length |
u32le value length | key | value in key order, `absent` lists keys in hex.
"""

from __future__ import annotations

import asyncio
import json
import struct
import sys
from pathlib import Path
from typing import Any

import slatedb.uniffi as slatedb

EVERYTHING = slatedb.KeyRange(start=None, start_inclusive=True, end=None, end_inclusive=False)


def read_rows(path: str) -> list[tuple[bytes, bytes]]:
    data, at, rows = Path(path).read_bytes(), 0, []
    while at < len(data):
        k, v = struct.unpack_from("<II", data, at)
        rows.append((data[at + 8 : at + 8 + k], data[at + 8 + k : at + 8 + k + v]))
        at += 8 + k + v
    return rows


async def scan(db: Any) -> list[tuple[bytes, bytes]]:
    rows, iterator = [], await db.scan(EVERYTHING)
    while (row := await iterator.next()) is not None:
        rows.append((row.key, row.value))
    return rows


async def check(db: Any, rows: list[tuple[bytes, bytes]], absent: list[bytes], what: str, gets: int) -> None:
    """All rows by scan, `gets` of them one by one."""
    got = await scan(db)
    assert got == rows, f"{what}: a scan gives {len(got)} rows, not the {len(rows)} that were written"
    for key, value in rows[:: max(1, len(rows) // gets)]:
        assert await db.get(key) == value, f"{what}: get of {key[:40]!r}"
    for key in absent[:: max(1, len(absent) // gets)]:
        assert await db.get(key) is None, f"{what}: get of absent {key[:40]!r}"


def path_of(case: dict[str, Any]) -> str:
    return str(Path(case["path"]).resolve()).lstrip("/")


async def open_reader(case: dict[str, Any], checkpoint: str | None) -> Any:
    builder = slatedb.DbReaderBuilder(path_of(case), slatedb.ObjectStore.resolve("file:///"))
    if checkpoint and hasattr(builder, "with_checkpoint_id"):
        builder.with_checkpoint_id(checkpoint)
    elif checkpoint:
        builder.with_reader_mode(slatedb.ReaderMode.CHECKPOINT(checkpoint))
    return await builder.build()


async def open_writer(case: dict[str, Any]) -> Any:
    return await slatedb.DbBuilder(path_of(case), slatedb.ObjectStore.resolve("file:///")).build()


async def change(case: dict[str, Any], rows: list[tuple[bytes, bytes]], absent: list[bytes]) -> None:
    """Later writes on top: overwrite, delete, insert; flush; all of it there after a reopen."""
    db = await open_writer(case)
    await check(db, rows, absent, "read-write", 500)
    now, batch = dict(rows), slatedb.WriteBatch()
    for n, (key, _) in enumerate(rows[:: max(1, len(rows) // 50)]):
        if n % 2:
            batch.delete(key)
            del now[key]
        else:
            now[key] = now[key][:100] + b" changed"
            batch.put(key, now[key])
    for n in range(20):
        now[f"later-{n:04d}".encode()] = b"inserted"
        batch.put(f"later-{n:04d}".encode(), b"inserted")
    await db.write(batch)
    await db.flush()
    await db.shutdown()
    db = await open_writer(case)
    await check(db, sorted(now.items()), absent, "reopened", 200)
    await db.shutdown()
    # the checkpoint still shows what was built
    reader = await open_reader(case, case["checkpoint"])
    await check(reader, rows, absent, "by checkpoint after later writes", 200)
    await reader.shutdown()


def names_ssts(case: dict[str, Any], ulids: list[str]) -> bool:
    """Whether the newest manifest still names one of these SSTs."""
    newest = max((Path(case["path"]) / "manifest").glob("*.manifest"))
    data = newest.read_bytes()
    digits = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
    for ulid in ulids:
        number = 0
        for digit in ulid:
            number = number << 5 | digits.index(digit)
        if struct.pack("<Q", number & (1 << 64) - 1) in data:
            return True
    return False


def impatient_settings() -> Any:
    """Small tables, and no waiting for the next look at the clock, as far as this version can be told."""
    settings = slatedb.Settings.default()
    known = json.loads(settings.to_json_string())
    for name, value in (("l0_sst_size_bytes", 65536), ("flush_interval", "20ms"), ("manifest_poll_interval", "100ms"),
                        ("compactor_options.poll_interval", "100ms"),
                        ("compactor_options.commit_compacted_interval", "100ms"),
                        ("compactor_options.worker.compactions_poll_interval", "100ms")):
        place: Any = known
        for part in name.split("."):
            place = place.get(part) if isinstance(place, dict) else None
        if place is not None:
            settings.set(name, json.dumps(value))
    return settings


async def compact(case: dict[str, Any], rows: list[tuple[bytes, bytes]], absent: list[bytes]) -> None:
    ulids = [p.stem for p in (Path(case["path"]) / "compacted").glob("*.sst")]
    assert names_ssts(case, ulids)
    builder = slatedb.DbBuilder(path_of(case), slatedb.ObjectStore.resolve("file:///"))
    builder.with_settings(impatient_settings())
    db = await builder.build()
    now = dict(rows)
    for n in range(1000):
        batch = slatedb.WriteBatch()
        for key, _ in rows[n % 4 :: 5]:
            now[key] = f"batch {n} ".encode() * 10
            batch.put(key, now[key])
        await db.write(batch)
        await db.flush()
        if not names_ssts(case, ulids):
            break
    assert not names_ssts(case, ulids), "the engine did not compact what we built"
    await check(db, sorted(now.items()), absent, "compacted", 2000)
    await db.shutdown()
    reader = await open_reader(case, case["checkpoint"])
    await check(reader, rows, absent, "by checkpoint after compaction", 500)
    await reader.shutdown()


async def run(mode: str, case: dict[str, Any]) -> None:
    rows, absent = read_rows(case["rows"]), [bytes.fromhex(k) for k in case["absent"]]
    if mode in ("write", "compact"):
        await (change if mode == "write" else compact)(case, rows, absent)
        return
    reader = await open_reader(case, case["checkpoint"] if mode == "checkpoint" else None)
    await check(reader, rows, absent, mode, 5000 if mode == "reader" else 500)
    await reader.shutdown()


async def main() -> None:
    """All cases side by side: most of the time goes into the engine's own timers."""
    cases = json.load(sys.stdin)
    results = await asyncio.gather(*(run(sys.argv[1], case) for case in cases), return_exceptions=True)
    failures = [f"{case['name']}: {type(e).__name__}: {e}" for case, e in zip(cases, results) if e is not None]
    if failures:
        sys.exit("\n".join(failures))


asyncio.run(main())
