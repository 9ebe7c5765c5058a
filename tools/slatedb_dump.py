#!/usr/bin/env python3
"""Decode a SlateDB database that lies in a local folder, without SlateDB.

The folder has the layout of the object store: manifest/, wal/, compacted/, compactions/, gc/.
The layouts are specified in docs/formats/slatedb.md; the section numbers below refer to it.

    slatedb_dump.py DB                        manifest, SSTs, WAL range
    slatedb_dump.py DB --rows                 visible rows as JSON lines: {"key": hex, "value": hex}
    slatedb_dump.py DB --rows --meta          ... with seq, create_ts, expire_ts
    slatedb_dump.py DB --versions             every stored row, newest source first, with where it lies
    slatedb_dump.py DB --get HEXKEY           one key, and the objects and ranges that were read for it
    slatedb_dump.py DB --verify               every checksum, order, index and filter invariant
    slatedb_dump.py DB --sst compacted/X.sst  one SST file

Only the standard library is needed for uncompressed and zlib databases. Snappy needs the package `cramjam`,
LZ4 `lz4`, Zstandard `zstandard`.
"""

from __future__ import annotations

import argparse
import bisect
import json
import struct
import sys
import uuid
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Iterator

CODECS = ("none", "snappy", "zlib", "lz4", "zstd")
FLAG_TOMBSTONE, FLAG_EXPIRE_TS, FLAG_CREATE_TS, FLAG_MERGE = 1, 2, 4, 8
FLAGS_KNOWN = 15
SST_FOOTER_BYTES = 10


class FormatError(Exception):
    """The bytes do not follow the format."""


# FlatBuffers (section 3): a reader driven by field lists, every access bounds-checked
# A field is (name, kind, default). The position in the list is the field id; the vtable slot is 4 + 2 * id.
# Kinds: bool u8 u16 u32 u64 i64 | bytes string | table:T | tables:T (vector of tables) | hidden.

SCALARS = {"bool": "<?", "u8": "<B", "u16": "<H", "u32": "<I", "u64": "<Q", "i64": "<q"}
REQUIRED = object()

_SST_INFO = [
    ("first_entry", "bytes", None), ("index_offset", "u64", 0), ("index_len", "u64", 0),
    ("filter_offset", "u64", 0), ("filter_len", "u64", 0), ("compression_format", "u8", 0),
    ("sst_type", "u8", 0), ("last_entry", "bytes", None), ("stats_offset", "u64", 0),
    ("stats_len", "u64", 0), ("filter_format", "u8", 0),
]
_MANIFEST_HEAD = [
    ("manifest_id", "u64", 0), ("external_dbs", "tables:ExternalDb", ()), ("initialized", "bool", False),
    ("writer_epoch", "u64", 0), ("compactor_epoch", "u64", 0), ("replay_after_wal_id", "u64", 0),
    ("wal_id_last_seen", "u64", 0),
]
SCHEMA = {
    "Uuid": [("high", "u64", 0), ("low", "u64", 0)],
    "Ulid": [("high", "u64", 0), ("low", "u64", 0)],
    "BytesBound": [("key", "bytes", None), ("bound_type", "u8", 0)],
    "BytesRange": [("start_bound", "table:BytesBound", REQUIRED), ("end_bound", "table:BytesBound", REQUIRED)],
    "SsTableInfo": _SST_INFO,
    "BlockMeta": [("offset", "u64", 0), ("first_key", "bytes", REQUIRED)],
    "SsTableIndex": [("block_meta", "tables:BlockMeta", REQUIRED)],
    "BlockStats": [("num_puts", "u16", 0), ("num_deletes", "u16", 0), ("num_merges", "u16", 0)],
    "SstStats": [
        ("num_puts", "u64", 0), ("num_deletes", "u64", 0), ("num_merges", "u64", 0),
        ("raw_key_size", "u64", 0), ("raw_val_size", "u64", 0), ("block_stats", "tables:BlockStats", ()),
    ],
    "CompactedSsTable": [
        ("id", "table:Ulid", REQUIRED), ("info", "table:SsTableInfo", REQUIRED),
        ("visible_range", "table:BytesRange", None), ("format_version", "u16", None),
    ],
    "CompactedSsTableV2": [
        ("id", "table:Ulid", REQUIRED), ("info", "table:SsTableInfo", REQUIRED), ("format_version", "u16", None),
    ],
    "CompactedSsTableView": [
        ("id", "table:Ulid", REQUIRED), ("sst_id", "table:Ulid", REQUIRED), ("visible_range", "table:BytesRange", None),
    ],
    "SortedRun": [("id", "u32", 0), ("ssts", "tables:CompactedSsTable", REQUIRED)],
    "SortedRunV2": [("id", "u32", 0), ("ssts", "tables:CompactedSsTableView", REQUIRED)],
    "ExternalDb": [
        ("path", "string", REQUIRED), ("source_checkpoint_id", "table:Uuid", REQUIRED),
        ("final_checkpoint_id", "table:Uuid", None), ("sst_ids", "tables:Ulid", REQUIRED),
    ],
    "Checkpoint": [
        ("id", "table:Uuid", REQUIRED), ("manifest_id", "u64", 0), ("checkpoint_expire_time_s", "u32", 0),
        ("checkpoint_create_time_s", "u32", 0), ("metadata_type", "u8", 0), ("metadata", "hidden", None),
        ("name", "string", None),
    ],
    "Segment": [
        ("prefix", "bytes", REQUIRED), ("last_compacted_l0", "table:Ulid", None),
        ("l0", "tables:CompactedSsTableView", REQUIRED), ("compacted", "tables:SortedRunV2", REQUIRED),
    ],
    "ManifestV1": _MANIFEST_HEAD + [
        ("last_compacted_l0", "table:Ulid", None), ("l0", "tables:CompactedSsTable", REQUIRED),
        ("compacted", "tables:SortedRun", REQUIRED), ("last_l0_clock_tick", "i64", 0),
        ("checkpoints", "tables:Checkpoint", REQUIRED), ("last_l0_seq", "u64", 0),
        ("wal_object_store_uri", "string", None), ("recent_snapshot_min_seq", "u64", 0),
        ("sequence_tracker", "bytes", None),
    ],
    "ManifestV2": _MANIFEST_HEAD + [
        ("last_compacted_l0", "table:Ulid", None), ("ssts", "tables:CompactedSsTableV2", REQUIRED),
        ("l0", "tables:CompactedSsTableView", REQUIRED), ("compacted", "tables:SortedRunV2", REQUIRED),
        ("last_l0_clock_tick", "i64", 0), ("checkpoints", "tables:Checkpoint", REQUIRED), ("last_l0_seq", "u64", 0),
        ("recent_snapshot_min_seq", "u64", 0), ("sequence_tracker", "bytes", None),
        ("segments", "tables:Segment", ()), ("segment_extractor_name", "string", None),
    ],
}


class FlatBuffer:
    """A little-endian FlatBuffer; `root(T)` decodes it to nested namespaces."""

    def __init__(self, data: bytes, where: str):
        self.data, self.where = data, where

    def root(self, table: str) -> SimpleNamespace:
        return self._table(self._unpack("<I", 0), table)

    def _text(self, raw: bytes) -> str:
        try:
            return raw.decode()
        except UnicodeDecodeError as error:
            raise FormatError(f"{self.where}: a string is not UTF-8: {error}") from error

    def _unpack(self, fmt: str, at: int):
        if at < 0 or at + struct.calcsize(fmt) > len(self.data):
            raise FormatError(f"{self.where}: flatbuffer offset {at} lies outside {len(self.data)} bytes")
        return struct.unpack_from(fmt, self.data, at)[0]

    def _table(self, at: int, table: str) -> SimpleNamespace:
        vtable = at - self._unpack("<i", at)
        vtable_bytes = self._unpack("<H", vtable)
        out = SimpleNamespace()
        for field_id, (name, kind, default) in enumerate(SCHEMA[table]):
            slot = 4 + 2 * field_id
            offset = self._unpack("<H", vtable + slot) if slot + 2 <= vtable_bytes else 0
            if offset == 0:
                if default is REQUIRED:
                    raise FormatError(f"{self.where}: {table}.{name} is missing")
                setattr(out, name, default)
            else:
                setattr(out, name, self._value(at + offset, kind))
        return out

    def _value(self, at: int, kind: str):
        if kind in SCALARS:
            return self._unpack(SCALARS[kind], at)
        if kind == "hidden":
            return None
        target = at + self._unpack("<I", at)
        if kind.startswith("table:"):
            return self._table(target, kind[6:])
        count = self._unpack("<I", target)
        if kind in ("bytes", "string"):
            if target + 4 + count > len(self.data):
                raise FormatError(f"{self.where}: vector at {target} runs past the end")
            raw = self.data[target + 4 : target + 4 + count]
            return raw if kind == "bytes" else self._text(raw)
        if target + 4 + 4 * count > len(self.data):
            raise FormatError(f"{self.where}: vector at {target} runs past the end")
        slots = range(target + 4, target + 4 + 4 * count, 4)
        return [self._table(slot + self._unpack("<I", slot), kind[7:]) for slot in slots]


# Identifiers

CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


def ulid_text(ulid: SimpleNamespace) -> str:
    value = ulid.high << 64 | ulid.low
    return "".join(CROCKFORD[value >> shift & 31] for shift in range(125, -1, -5))


def uuid_text(value: SimpleNamespace) -> str:
    return str(uuid.UUID(int=value.high << 64 | value.low))


# Blocks on storage (section 5.2): compressed payload + big-endian CRC-32


def checked(raw: bytes, where: str) -> bytes:
    if len(raw) < 4:
        raise FormatError(f"{where}: {len(raw)} bytes cannot hold a checksum")
    payload, stored = raw[:-4], int.from_bytes(raw[-4:], "big")
    if zlib.crc32(payload) != stored:
        raise FormatError(f"{where}: checksum mismatch, stored {stored:08x}, computed {zlib.crc32(payload):08x}")
    return payload


def decompressed(payload: bytes, codec: int, where: str) -> bytes:
    try:
        if codec == 0:
            return payload
        if codec == 1:
            import cramjam

            return bytes(cramjam.snappy.decompress_raw(payload))
        if codec == 2:
            return zlib.decompress(payload)
        if codec == 3:
            import lz4.block

            return lz4.block.decompress(payload)  # takes the 4-byte little-endian size in front
        if codec == 4:
            import zstandard

            return zstandard.ZstdDecompressor().decompressobj().decompress(payload)
    except ImportError as missing:
        raise SystemExit(f"{where}: codec {CODECS[codec]} needs a package: {missing}") from None
    except Exception as error:
        raise FormatError(f"{where}: {CODECS[codec]} cannot be decompressed: {error}") from error
    raise FormatError(f"{where}: unknown compression format {codec}")


# Rows (section 6)


@dataclass(slots=True)
class Row:
    key: bytes
    seq: int
    kind: str  # "put", "delete", "merge"
    value: bytes
    create_ts: int | None
    expire_ts: int | None


class Cursor:
    """A position in one block's bytes."""

    def __init__(self, data: bytes, where: str, at: int = 0):
        self.data, self.where, self.at = data, where, at

    def take(self, count: int) -> bytes:
        end = self.at + count
        if end > len(self.data):
            raise FormatError(f"{self.where}: row at {self.at} runs past the end of the block")
        piece = self.data[self.at : end]
        self.at = end
        return piece

    def number(self, width: int, signed: bool = False) -> int:
        return int.from_bytes(self.take(width), "big", signed=signed)

    def varint(self) -> int:
        value = 0
        for shift in range(0, 35, 7):
            byte = self.take(1)[0]
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
        raise FormatError(f"{self.where}: varint at {self.at} is longer than 5 bytes")

    def flags_and_times(self) -> tuple[int, int, int | None, int | None]:
        seq, flags = self.number(8), self.number(1)
        if flags & ~FLAGS_KNOWN or flags & (FLAG_TOMBSTONE | FLAG_MERGE) == FLAG_TOMBSTONE | FLAG_MERGE:
            raise FormatError(f"{self.where}: invalid row flags {flags:#04x}")
        expire_ts = self.number(8, signed=True) if flags & FLAG_EXPIRE_TS else None
        create_ts = self.number(8, signed=True) if flags & FLAG_CREATE_TS else None
        return seq, flags, expire_ts, create_ts


def row_kind(flags: int) -> str:
    return "delete" if flags & FLAG_TOMBSTONE else "merge" if flags & FLAG_MERGE else "put"


def row_v1(cursor: Cursor, first_key: bytes | None) -> Row:
    shared, unshared = cursor.number(2), cursor.number(2)
    suffix = cursor.take(unshared)
    seq, flags, expire_ts, create_ts = cursor.flags_and_times()
    value = b"" if flags & FLAG_TOMBSTONE else cursor.take(cursor.number(4))
    if shared > len(first_key or b""):
        raise FormatError(f"{cursor.where}: shared key prefix {shared} is longer than the block's first key")
    return Row((first_key or b"")[:shared] + suffix, seq, row_kind(flags), value, create_ts, expire_ts)


def row_v2(cursor: Cursor, previous_key: bytes) -> Row:
    shared, unshared, value_len = cursor.varint(), cursor.varint(), cursor.varint()
    suffix, value = cursor.take(unshared), cursor.take(value_len)
    seq, flags, expire_ts, create_ts = cursor.flags_and_times()
    if shared > len(previous_key):
        raise FormatError(f"{cursor.where}: shared key prefix {shared} is longer than the previous key")
    return Row(previous_key[:shared] + suffix, seq, row_kind(flags), value, create_ts, expire_ts)


def block_rows(block: bytes, version: int, where: str) -> Iterator[Row]:
    """Rows of one decompressed data block. In version 1 the trailer has one offset per row, in version 2 one per restart."""
    if len(block) < 2:
        raise FormatError(f"{where}: block has no trailer")
    count = int.from_bytes(block[-2:], "big")
    data_end = len(block) - 2 - 2 * count
    if count == 0 or data_end < 0:
        raise FormatError(f"{where}: block trailer names {count} offsets in {len(block)} bytes")
    offsets = struct.unpack(f">{count}H", block[data_end:-2])
    cursor = Cursor(block[:data_end], where)
    if version == 1:
        first_key = None
        for number, offset in enumerate(offsets):
            if offset != cursor.at & 0xFFFF:
                raise FormatError(f"{where}: row {number} lies at {cursor.at}, its offset says {offset}")
            row = row_v1(cursor, first_key)
            first_key = row.key if first_key is None else first_key
            yield row
        if cursor.at != data_end:
            raise FormatError(f"{where}: {data_end - cursor.at} bytes after the last row")
        return
    restarts, key = set(offsets), b""
    while cursor.at < data_end:
        if cursor.at in restarts:
            restarts.discard(cursor.at)
            if cursor.data[cursor.at] != 0:
                raise FormatError(f"{where}: restart at {cursor.at} shares bytes with the key before it")
        row = row_v2(cursor, key)
        key = row.key
        yield row
    if restarts:
        raise FormatError(f"{where}: restarts {sorted(restarts)} are not at a row")


# Filters (section 5.5)

MASK64 = (1 << 64) - 1


def siphash13(data: bytes) -> int:
    """SipHash-1-3 with a zero key."""
    v0, v1, v2, v3 = 0x736F6D6570736575, 0x646F72616E646F6D, 0x6C7967656E657261, 0x7465646279746573

    def rounds(count: int) -> None:
        nonlocal v0, v1, v2, v3
        for _ in range(count):
            v0 = v0 + v1 & MASK64
            v1 = (v1 << 13 | v1 >> 51) & MASK64 ^ v0
            v0 = (v0 << 32 | v0 >> 32) & MASK64
            v2 = v2 + v3 & MASK64
            v3 = (v3 << 16 | v3 >> 48) & MASK64 ^ v2
            v0 = v0 + v3 & MASK64
            v3 = (v3 << 21 | v3 >> 43) & MASK64 ^ v0
            v2 = v2 + v1 & MASK64
            v1 = (v1 << 17 | v1 >> 47) & MASK64 ^ v2
            v2 = (v2 << 32 | v2 >> 32) & MASK64

    tail = len(data) & 7
    for at in range(0, len(data) - tail, 8):
        word = int.from_bytes(data[at : at + 8], "little")
        v3 ^= word
        rounds(1)
        v0 ^= word
    word = (len(data) & 0xFF) << 56 | int.from_bytes(data[len(data) - tail :], "little")
    v3 ^= word
    rounds(1)
    v0 ^= word
    v2 ^= 0xFF
    rounds(3)
    return v0 ^ v1 ^ v2 ^ v3


@dataclass
class Filter:
    name: str
    payload: bytes

    @property
    def probes(self) -> int:
        return int.from_bytes(self.payload[:2], "big")

    def may_hold(self, key: bytes) -> bool:
        """For a Bloom filter over whole keys. Any other filter never rules a key out."""
        if self.name != "_bf" and not (self.name.startswith("_bf:p=") and not self.name.endswith(":wh=0")):
            return True
        bits = (len(self.payload) - 2) * 8
        if bits == 0:
            return False
        digest = siphash13(key)
        position, step = (digest & 0xFFFFFFFF) % bits, (digest >> 32) % bits
        for probe in range(self.probes):
            step = (step + probe) % bits
            if not self.payload[2 + position // 8] >> position % 8 & 1:
                return False
            position = (position + step) % bits
        return True


def parse_filters(block: bytes, filter_format: int, where: str) -> list[Filter]:
    if filter_format == 0:
        return [Filter("_bf", block)]
    cursor = Cursor(block, where)
    filters = []
    for _ in range(cursor.number(2)):
        name = cursor.take(cursor.number(2)).decode(errors="replace")
        filters.append(Filter(name, cursor.take(cursor.number(8))))
    return filters


# SST files (section 5)


class Sst:
    """One file. With the manifest's `view` of it the footer is not read, as in SlateDB (section 8.1)."""

    def __init__(self, path: Path, reads: list | None = None, view: View | None = None):
        self.path, self.where, self.reads = path, f"{path.parent.name}/{path.name}", reads
        self.size = path.stat().st_size
        self.is_fence_marker = self.size <= SST_FOOTER_BYTES  # section 4.6
        self._index: list | None = None
        if view is not None:
            self.info, self.version = view.info, view.version
            return
        if self.is_fence_marker:
            return
        footer = self._read(self.size - SST_FOOTER_BYTES, self.size, "footer")
        self.info_offset, self.version = struct.unpack(">QH", footer)
        if self.version not in (1, 2):
            raise FormatError(f"{self.where}: SST format version {self.version} is not known")
        if self.info_offset > self.size - SST_FOOTER_BYTES:
            raise FormatError(f"{self.where}: info offset {self.info_offset} lies outside the file")
        raw_info = self._read(self.info_offset, self.size - SST_FOOTER_BYTES, "info")
        self.info = FlatBuffer(checked(raw_info, self.where + " info"), self.where).root("SsTableInfo")

    def _read(self, start: int, end: int, what: str) -> bytes:
        if not 0 <= start <= end <= self.size:
            raise FormatError(f"{self.where}: {what} at {start}..{end} lies outside {self.size} bytes")
        if self.reads is not None:
            self.reads.append((self.where, what, start, end))
        with self.path.open("rb") as file:
            file.seek(start)
            return file.read(end - start)

    def _section(self, offset: int, length: int, what: str) -> bytes:
        where = f"{self.where} {what}"
        return decompressed(checked(self._read(offset, offset + length, what), where), self.info.compression_format, where)

    def index(self) -> list:
        if self._index is None:
            raw = self._section(self.info.index_offset, self.info.index_len, "index")
            self._index = FlatBuffer(raw, self.where + " index").root("SsTableIndex").block_meta
        return self._index

    def filters(self) -> list[Filter]:
        if self.info.filter_len == 0:
            return []
        raw = self._section(self.info.filter_offset, self.info.filter_len, "filter")
        return parse_filters(raw, self.info.filter_format, self.where + " filter")

    def stats(self) -> SimpleNamespace | None:
        if self.info.stats_len == 0:
            return None
        raw = self._section(self.info.stats_offset, self.info.stats_len, "stats")
        return FlatBuffer(raw, self.where + " stats").root("SstStats")

    def blocks_end(self) -> int:
        return self.info.filter_offset if self.info.filter_len else self.info.index_offset

    def block_range(self, number: int) -> tuple[int, int]:
        index = self.index()
        end = index[number + 1].offset if number + 1 < len(index) else self.blocks_end()
        return index[number].offset, end

    def block_rows(self, number: int) -> list[Row]:
        start, end = self.block_range(number)
        where = f"block {number}"
        return list(block_rows(self._section(start, end - start, where), self.version, f"{self.where} {where}"))

    def rows(self) -> Iterator[Row]:
        if not self.is_fence_marker:
            for number in range(len(self.index())):
                yield from self.block_rows(number)

    def versions_of(self, key: bytes) -> list[Row]:
        """Rows of one key. The blocks are those from the last one with first_key < key on (section 5.4)."""
        first_keys = [meta.first_key for meta in self.index()]
        found = []
        for number in range(max(0, bisect.bisect_left(first_keys, key) - 1), bisect.bisect_right(first_keys, key)):
            found += [row for row in self.block_rows(number) if row.key == key]
        return found


# Manifest (section 4)


@dataclass
class View:
    """An SST as one level of a tree shows it."""

    sst_id: str
    view_id: str
    info: SimpleNamespace
    version: int
    visible_range: SimpleNamespace | None

    def shows(self, key: bytes) -> bool:
        if self.visible_range is None:
            return True
        low, high = self.visible_range.start_bound, self.visible_range.end_bound
        above = low.bound_type == 1 or key > low.key or (key == low.key and low.bound_type == 2)
        below = high.bound_type == 1 or key < high.key or (key == high.key and high.bound_type == 2)
        return above and below

    def may_hold(self, key: bytes) -> bool:
        """By the entries of the manifest alone, without reading the SST."""
        first, last = self.info.first_entry, self.info.last_entry
        return self.shows(key) and (first is None or key >= first) and (last is None or key <= last)


@dataclass
class Tree:
    """One LSM tree: the unsegmented one has the empty prefix."""

    prefix: bytes
    last_compacted_l0: str | None
    l0: list[View]  # newest first
    runs: list[tuple[int, list[View]]]  # newest first


@dataclass
class Manifest:
    id: int
    version: int
    raw: SimpleNamespace
    trees: list[Tree]
    external: dict[str, str] = field(default_factory=dict)

    @property
    def next_wal_id(self) -> int:
        return self.raw.wal_id_last_seen + 1

    def read_trees(self) -> list[Tree]:
        return self.trees[1:] or self.trees


def parse_manifest(data: bytes, manifest_id: int) -> Manifest:
    where = f"manifest {manifest_id}"
    if len(data) < 2:
        raise FormatError(f"{where}: empty")
    version = int.from_bytes(data[:2], "big")
    if version not in (1, 2):
        raise FormatError(f"{where}: format version {version} is not known")
    raw = FlatBuffer(data[2:], where).root(f"ManifestV{version}")

    if version == 1:
        def view(sst: SimpleNamespace) -> View:
            sst_id = ulid_text(sst.id)
            return View(sst_id, sst_id, sst.info, sst.format_version or 1, sst.visible_range)
    else:
        by_id = {ulid_text(sst.id): sst for sst in raw.ssts}

        def view(entry: SimpleNamespace) -> View:
            sst_id = ulid_text(entry.sst_id)
            if sst_id not in by_id:
                raise FormatError(f"{where}: view of {sst_id}, which is not among the SSTs")
            sst = by_id[sst_id]
            return View(sst_id, ulid_text(entry.id), sst.info, sst.format_version or 1, entry.visible_range)

    def tree(prefix: bytes, node: SimpleNamespace) -> Tree:
        last = ulid_text(node.last_compacted_l0) if node.last_compacted_l0 else None
        runs = [(run.id, [view(sst) for sst in run.ssts]) for run in node.compacted]
        return Tree(prefix, last, [view(sst) for sst in node.l0], runs)

    segments = sorted(raw.segments, key=lambda s: s.prefix) if version == 2 else []
    manifest = Manifest(manifest_id, version, raw, [tree(b"", raw)] + [tree(s.prefix, s) for s in segments])
    for db in raw.external_dbs:
        manifest.external.update({ulid_text(sst_id): db.path for sst_id in db.sst_ids})
    return manifest


def parse_sequence_tracker(data: bytes) -> list[tuple[int, int]]:
    """(sequence number, unix seconds) pairs (section 4.5)."""
    if len(data) < 5 or data[0] != 1:
        raise FormatError(f"sequence tracker: {data[:5].hex()} is no known header")
    count, at = int.from_bytes(data[1:5], "little"), 5
    columns = []
    for _ in range(2):
        bits = "".join(f"{byte:08b}" for byte in data[at:])
        position = 0

        def pull(width: int, signed: bool = False) -> int:
            nonlocal position
            if position + width > len(bits):
                raise FormatError("sequence tracker: data ends early")
            number = int(bits[position : position + width], 2) if width else 0
            position += width
            return number - (1 << width) if signed and number >> width - 1 else number

        values: list[int] = []
        delta = 0
        for number in range(pull(32)):
            if number == 0:
                values.append(pull(64))
                continue
            ones = 0
            while ones < 4 and pull(1):
                ones += 1
            if ones:
                delta += pull((0, 7, 9, 12, 32)[ones], signed=True)
            values.append(values[-1] + delta)
        if len(values) != count:
            raise FormatError(f"sequence tracker: {len(values)} values, expected {count}")
        columns.append(values)
        at += (position + 7) // 8
    return list(zip(*columns))


# Database (sections 2, 4, 7)


class Database:
    def __init__(self, root: Path, store_root: Path | None = None, wal_root: Path | None = None):
        self.root, self.store_root, self.wal_root = root, store_root, wal_root or root
        self.reads: list[tuple[str, str, int, int]] = []

    def manifest_ids(self) -> list[int]:
        return sorted(
            int(path.stem) for path in (self.root / "manifest").glob("*.manifest") if path.stem.isdigit()
        )

    def manifest(self, manifest_id: int | None = None) -> Manifest:
        if manifest_id is None:
            ids = self.manifest_ids()
            if not ids:
                raise FormatError(f"{self.root}: no manifest")
            manifest_id = ids[-1]
        path = self.root / "manifest" / f"{manifest_id:020}.manifest"
        if not path.exists():
            raise FormatError(f"{self.root}: manifest {manifest_id} is missing")
        return parse_manifest(path.read_bytes(), manifest_id)

    def manifest_of_checkpoint(self, checkpoint: uuid.UUID) -> Manifest:
        for entry in self.manifest().raw.checkpoints:
            if uuid_text(entry.id) == str(checkpoint):
                return self.manifest(entry.manifest_id)
        raise FormatError(f"{self.root}: checkpoint {checkpoint} is not in the newest manifest")

    def sst(self, view: View, manifest: Manifest, with_footer: bool = False) -> Sst:
        root, sst_id = self.root, view.sst_id
        if sst_id in manifest.external:
            if self.store_root is None:
                raise FormatError(f"SST {sst_id} belongs to {manifest.external[sst_id]}: name the store with --store-root")
            root = self.store_root / manifest.external[sst_id]
        path = root / "compacted" / f"{sst_id}.sst"
        if not path.exists():
            raise FormatError(f"{path}: missing")
        return Sst(path, self.reads, None if with_footer else view)

    def wal_ids(self, manifest: Manifest, pinned: bool) -> list[int]:
        """WAL files to replay. A pinned state ends before next_wal_id, a live one at the first missing file."""
        ids, wal_id = [], manifest.raw.replay_after_wal_id + 1
        while (not pinned or wal_id < manifest.next_wal_id) and self.wal_path(wal_id).exists():
            ids.append(wal_id)
            wal_id += 1
        return ids

    def wal_path(self, wal_id: int) -> Path:
        return self.wal_root / "wal" / f"{wal_id:020}.sst"

    def sources(self, manifest: Manifest, wal_ids: list[int], key: bytes | None = None) -> Iterator[tuple[str, Iterator[Row]]]:
        """(name, rows) from newest to oldest; with `key`, only the rows of that key and only the SSTs that may hold it."""
        replayed = [
            row
            for wal_id in wal_ids
            for row in Sst(self.wal_path(wal_id), self.reads).rows()
            if row.seq > manifest.raw.last_l0_seq and (key is None or row.key == key)
        ]
        yield "wal", iter(sorted(replayed, key=lambda row: (row.key, -row.seq)))
        for tree in manifest.read_trees():
            if key is not None and not key.startswith(tree.prefix):
                continue
            label = f"segment {tree.prefix.hex()} " if tree.prefix else ""
            for view in tree.l0:
                yield f"{label}l0 {view.sst_id}", self._view_rows(view, manifest, key)
            for run_id, views in tree.runs:
                for view in views:
                    yield f"{label}run {run_id} {view.sst_id}", self._view_rows(view, manifest, key)

    def _view_rows(self, view: View, manifest: Manifest, key: bytes | None) -> Iterator[Row]:
        if key is None:
            yield from (row for row in self.sst(view, manifest).rows() if view.shows(row.key))
        elif view.may_hold(key):
            sst = self.sst(view, manifest)
            if all(each.may_hold(key) for each in sst.filters()):
                yield from sst.versions_of(key)

    def visible_rows(self, manifest: Manifest, wal_ids: list[int]) -> Iterator[Row]:
        newest: dict[bytes, Row] = {}
        highest_seq = manifest.raw.last_l0_seq
        for source, rows in self.sources(manifest, wal_ids):
            for row in rows:
                if source == "wal":
                    highest_seq = max(highest_seq, row.seq)
                elif row.seq > highest_seq:  # section 7.1: SlateDB does not show such rows
                    continue
                held = newest.get(row.key)
                if held is None or row.seq > held.seq:
                    newest[row.key] = row
        for key in sorted(newest):
            if newest[key].kind == "merge":
                raise FormatError(f"key {key.hex()}: its newest row is a merge operand, and no merge operator is known here")
            if newest[key].kind == "put":
                yield newest[key]

    def get(self, manifest: Manifest, wal_ids: list[int], key: bytes) -> Row | None:
        for _, rows in self.sources(manifest, wal_ids, key):
            row = max(rows, key=lambda each: each.seq, default=None)
            if row is not None:
                return row
        return None


# Verification


def verify_sst(sst: Sst, info: SimpleNamespace | None) -> dict[str, int]:
    """Check what the writer of this file must have kept; `info` is the manifest's copy, None for a WAL file. Returns counts."""
    def ensure(holds: bool, what: str) -> None:
        if not holds:
            raise FormatError(f"{sst.where}: {what}")

    counts = {"rows": 0, "blocks": 0, "filters": 0}
    if sst.is_fence_marker:
        return counts
    is_wal = info is None
    ensure(is_wal or vars(info) == vars(sst.info), "the manifest's copy of the info differs from the file's")
    index, filters, stats = sst.index(), sst.filters(), sst.stats()
    kinds = {"put": 0, "delete": 0, "merge": 0}
    first: Row | None = None
    last: Row | None = None
    for number, meta in enumerate(index):
        rows = sst.block_rows(number)
        first = first or rows[0]
        if is_wal:
            ensure(meta.first_key == rows[0].seq.to_bytes(8, "big"), f"index entry {number} is not the first sequence number")
        else:
            ensure(meta.first_key <= rows[0].key, f"index entry {number} is above the block's first key")
            ensure(last is None or meta.first_key >= last.key, f"index entry {number} is below the previous block's last key")
        for row in rows:
            kinds[row.kind] += 1
            if not is_wal:
                ensure(last is None or (last.key, -last.seq) < (row.key, -row.seq), f"block {number} is not in order")
                ensure(all(each.may_hold(row.key) for each in filters), f"a filter rules out the stored key {row.key.hex()}")
            last = row
    if not is_wal:
        ensure(first is not None, "no rows")
        ensure(sst.info.first_entry == first.key, "first_entry is not the first key")
        ensure(sst.info.last_entry in (None, last.key), "last_entry is not the last key")
    if stats is not None:
        ensure((stats.num_puts, stats.num_deletes, stats.num_merges) == tuple(kinds.values()), "the stats miscount the rows")
        ensure(len(stats.block_stats) == len(index), "the stats miscount the blocks")
    return {"rows": sum(kinds.values()), "blocks": len(index), "filters": len(filters)}


def verify(database: Database, manifest: Manifest, wal_ids: list[int]) -> None:
    total = {"ssts": 0, "rows": 0, "blocks": 0, "filters": 0}

    def add(counts: dict[str, int]) -> None:
        total["ssts"] += 1
        for name, count in counts.items():
            total[name] += count

    for tree in manifest.trees:
        for _, views in [("l0", [view]) for view in tree.l0] + tree.runs:
            for view in views:
                sst = database.sst(view, manifest, with_footer=True)
                if sst.version != view.version:
                    raise FormatError(f"{sst.where}: version {sst.version}, the manifest says {view.version}")
                add(verify_sst(sst, view.info))
        for run_id, views in tree.runs:
            for left, right in zip(views, views[1:]):
                if left.info.last_entry is not None and left.info.last_entry > right.info.first_entry:
                    raise FormatError(f"sorted run {run_id}: {left.sst_id} and {right.sst_id} overlap")
        if [run_id for run_id, _ in tree.runs] != sorted((run_id for run_id, _ in tree.runs), reverse=True):
            raise FormatError("sorted runs are not in descending order of id")
    last_seq = 0
    for wal_id in wal_ids:
        wal = Sst(database.wal_path(wal_id))
        add(verify_sst(wal, None))
        for row in wal.rows():
            last_seq = max(last_seq, row.seq)
    print("verified: " + ", ".join(f"{count} {name}" for name, count in total.items()) + f"; highest WAL seq {last_seq}")


# Text output


def show_bytes(data: bytes | None) -> str:
    if data is None:
        return "absent"
    text = data[:40].decode("ascii", "replace")
    return f"{data.hex()[:80]}" + (f" ({text!r})" if data and text.isprintable() else "")


def show_range(visible_range: SimpleNamespace | None) -> str:
    if visible_range is None:
        return ""
    low, high = visible_range.start_bound, visible_range.end_bound
    start = "(-inf" if low.bound_type == 1 else "[("[low.bound_type - 2] + low.key.hex()
    end = "+inf)" if high.bound_type == 1 else high.key.hex() + "])"[high.bound_type - 2]
    return f" visible {start}, {end}"


def show_view(view: View, indent: str) -> None:
    info = view.info
    print(f"{indent}{view.sst_id}{'' if view.view_id == view.sst_id else ' view ' + view.view_id} "
          f"v{view.version} {CODECS[info.compression_format]}{show_range(view.visible_range)}")
    print(f"{indent}  keys {show_bytes(info.first_entry)} .. {show_bytes(info.last_entry)}")
    print(f"{indent}  filter {info.filter_offset}+{info.filter_len} ({('legacy', 'composite')[info.filter_format]}) "
          f"index {info.index_offset}+{info.index_len} stats {info.stats_offset}+{info.stats_len}")


def show_manifest(manifest: Manifest) -> None:
    raw = manifest.raw
    print(f"manifest {manifest.id} (format V{manifest.version})")
    for name in ("initialized", "writer_epoch", "compactor_epoch", "replay_after_wal_id", "wal_id_last_seen",
                 "last_l0_seq", "last_l0_clock_tick", "recent_snapshot_min_seq"):
        print(f"  {name} {getattr(raw, name)}")
    for name in ("wal_object_store_uri", "segment_extractor_name"):
        if getattr(raw, name, None) is not None:
            print(f"  {name} {getattr(raw, name)!r}")
    if raw.sequence_tracker:
        pairs = parse_sequence_tracker(raw.sequence_tracker)
        print(f"  sequence_tracker {len(pairs)} entries" + (f", first {pairs[0]}, last {pairs[-1]}" if pairs else ""))
    for entry in raw.checkpoints:
        print(f"  checkpoint {uuid_text(entry.id)} -> manifest {entry.manifest_id}, created {entry.checkpoint_create_time_s}, "
              f"expires {entry.checkpoint_expire_time_s or 'never'}" + (f", name {entry.name!r}" if entry.name else ""))
    for db in raw.external_dbs:
        print(f"  external db {db.path!r}: source checkpoint {uuid_text(db.source_checkpoint_id)}, "
              f"final {uuid_text(db.final_checkpoint_id) if db.final_checkpoint_id else 'none'}, {len(db.sst_ids)} SSTs")
    for tree in manifest.trees:
        print(f"  tree {show_bytes(tree.prefix) or '(all keys)'}: last compacted L0 {tree.last_compacted_l0}")
        for view in tree.l0:
            print("    L0")
            show_view(view, "      ")
        for run_id, views in tree.runs:
            print(f"    sorted run {run_id}: {len(views)} SSTs")
            for view in views:
                show_view(view, "      ")


def show_sst(sst: Sst) -> None:
    print(f"{sst.where}: {sst.size} bytes")
    if sst.is_fence_marker:
        print("  fence marker without rows")
        return
    info = sst.info
    print(f"  version {sst.version}, {('compacted', 'wal')[info.sst_type]}, {CODECS[info.compression_format]}, info at {sst.info_offset}")
    print(f"  first entry {show_bytes(info.first_entry)}")
    print(f"  last entry  {show_bytes(info.last_entry)}")
    for each in sst.filters():
        print(f"  filter {each.name!r}: {len(each.payload)} bytes, {each.probes} probes")
    stats = sst.stats()
    if stats:
        print(f"  stats puts {stats.num_puts} deletes {stats.num_deletes} merges {stats.num_merges} "
              f"key bytes {stats.raw_key_size} value bytes {stats.raw_val_size}")
    for number, meta in enumerate(sst.index()):
        start, end = sst.block_range(number)
        print(f"  block {number}: {start}..{end}, {len(sst.block_rows(number))} rows, index key {show_bytes(meta.first_key)}")


def show_wal(database: Database, manifest: Manifest, wal_ids: list[int]) -> None:
    print(f"  wal to replay: {f'{wal_ids[0]}..{wal_ids[-1]}' if wal_ids else 'none'} "
          f"(after {manifest.raw.replay_after_wal_id}, next in manifest {manifest.next_wal_id})")
    for wal_id in wal_ids:
        wal = Sst(database.wal_path(wal_id))
        print(f"    {wal_id}: {wal.size} bytes, " + ("fence marker" if wal.is_fence_marker else f"{sum(1 for _ in wal.rows())} rows"))


def row_json(row: Row, meta: bool, source: str | None = None) -> str:
    out: dict = {"key": row.key.hex(), "value": row.value.hex()}
    if meta:
        out.update(seq=row.seq, create_ts=row.create_ts, expire_ts=row.expire_ts)
    if source is not None:
        out.update(kind=row.kind, source=source)
    return json.dumps(out)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("db", type=Path, help="folder of the database")
    parser.add_argument("--manifest", type=int, help="manifest id instead of the newest; the WAL ends where it says")
    parser.add_argument("--checkpoint", type=uuid.UUID, help="read the state that this checkpoint pins")
    parser.add_argument("--no-wal", action="store_true", help="leave the WAL out")
    parser.add_argument("--store-root", type=Path, help="folder that the paths of external databases start from")
    parser.add_argument("--wal-root", type=Path, help="folder whose wal/ holds the WAL, if it has its own store")
    parser.add_argument("--meta", action="store_true", help="rows with seq, create_ts, expire_ts")
    action = parser.add_mutually_exclusive_group()
    action.add_argument("--rows", action="store_true", help="visible rows as JSON lines")
    action.add_argument("--versions", action="store_true", help="all stored rows as JSON lines")
    action.add_argument("--get", type=bytes.fromhex, metavar="HEXKEY", help="look one key up")
    action.add_argument("--verify", action="store_true", help="check all invariants")
    action.add_argument("--sst", metavar="PATH", help="describe one SST, by its path below the database")
    args = parser.parse_args()

    database = Database(args.db, args.store_root, args.wal_root)
    try:
        if args.sst:
            show_sst(Sst(args.db / args.sst))
            return 0
        manifest = database.manifest_of_checkpoint(args.checkpoint) if args.checkpoint else database.manifest(args.manifest)
        if not manifest.raw.initialized:
            raise FormatError("the database is not initialized")
        if getattr(manifest.raw, "wal_object_store_uri", None) is not None and not (args.wal_root or args.no_wal):
            raise FormatError("the WAL has its own object store: name it with --wal-root, or leave it out with --no-wal")
        pinned = args.checkpoint is not None or args.manifest is not None
        wal_ids = [] if args.no_wal else database.wal_ids(manifest, pinned)
        if args.rows:
            for row in database.visible_rows(manifest, wal_ids):
                print(row_json(row, args.meta))
        elif args.versions:
            for source, rows in database.sources(manifest, wal_ids):
                for row in rows:
                    print(row_json(row, True, source))
        elif args.get is not None:
            row = database.get(manifest, wal_ids, args.get)
            print(row_json(row, True, row.kind) if row else "not found")
            for where, what, start, end in database.reads:
                print(f"  read {where} {what} {start}..{end}")
        elif args.verify:
            verify(database, manifest, wal_ids)
        else:
            show_manifest(manifest)
            show_wal(database, manifest, wal_ids)
    except FormatError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        return 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
