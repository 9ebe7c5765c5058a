"""What a codec costs and saves: SlateDB shards of rows that look like JSON documents. Processor time of all threads, from local files.

    PYTHONPATH=BUILD/python python bench/codecs.py [--rows N] [--rounds N]

A cold look-up here is one of a batch whose keys lie in blocks of their own, none of them in memory: reading, checking, unpacking. What is in memory is
unpacked, so a warm look-up costs the same with every codec.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from pathlib import Path

from common import sample, tell

from shardyfusion import HashShardedWriteConfig, PythonRecordInput, ShardedReader, WriterOutputConfig
from shardyfusion.slatedb_adapter import SlateDbFactory, SlateDbSettings
from shardyfusion.writer.python import write_hash_sharded

CODECS = (None, "lz4", "snappy", "zlib", "zstd")


def document(number: int) -> bytes:
    """Some 300 bytes."""
    rng = random.Random(number)
    return json.dumps({
        "user_id": number, "country": rng.choice(("DE", "FR", "US", "BR", "JP")), "segment": rng.choice(("new", "loyal", "lapsed")),
        "last_seen": f"2026-{rng.randrange(1, 13):02d}-{rng.randrange(1, 29):02d}T{rng.randrange(24):02d}:00:00Z",
        "scores": [round(rng.random(), 4) for _ in range(8)], "purchases_30d": rng.randrange(40), "revenue_30d": round(rng.random() * 500, 2),
        "recommended": [rng.randrange(1_000_000) for _ in range(8)],
    }).encode()  # fmt: skip


def once(codec: str | None, rows: list[tuple[int, bytes]]) -> None:
    who, case, count = codec or "none", "JSON of 300 B", len(rows)
    settings = SlateDbSettings(raw_overrides={"compression_codec": codec} if codec else {})
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        config = HashShardedWriteConfig(
            num_dbs=8, s3_prefix=(folder / "snapshot").as_uri(), adapter_factory=SlateDbFactory(settings=settings),
            output=WriterOutputConfig(local_root=str(folder / "work")))
        begin = time.process_time()
        write_hash_sharded(rows, config, PythonRecordInput(key_fn=lambda row: row[0], value_fn=lambda row: row[1]))
        sample("codec, writing", case, who, "us", (time.process_time() - begin) / count * 1e6)
        stored = sum(path.stat().st_size for path in (folder / "snapshot" / "shards").rglob("*") if path.is_file())
        sample("codec, stored", case, who, "B", stored / count)
        with ShardedReader(s3_prefix=config.s3_prefix, local_root=str(folder / "local")) as reader:
            keys = [key for key, _ in rows[:: max(1, count // 2_000)]]
            begin = time.process_time()
            values = reader.multi_get(keys)
            sample("codec, cold look-up", case, who, "us", (time.process_time() - begin) / len(keys) * 1e6)
            assert values[keys[7]] == rows[keys[7]][1]
        with ShardedReader(s3_prefix=config.s3_prefix, local_root=str(folder / "local")) as reader:
            begin = time.process_time()
            assert sum(1 for _ in reader.scan()) == count
            sample("codec, scan", case, who, "ns", (time.process_time() - begin) / count * 1e9)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    rows = [(number, document(number)) for number in range(args.rows)]
    for _ in range(args.rounds):
        for codec in CODECS:
            tell(f"codec {codec}")
            once(codec, rows)


main()
