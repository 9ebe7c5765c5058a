#!/usr/bin/env python3
"""Write the seeds of the fuzz targets: make_corpus.py DIR makes a folder in DIR for each target of tests/fuzz/meson.build.

The seeds are cut out of the databases and snapshots in tests/fixtures, with the head bytes that the target expects in
front (they are described at the top of each *_fuzz.c). Parts that are compressed with a codec which Python lacks are
seeds of `compress` only.
"""

from __future__ import annotations

import base64
import hashlib
import json
import sqlite3
import struct
import sys
import zlib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
FIXTURES = ROOT / "tests" / "fixtures"
sys.path.insert(0, str(ROOT / "tools"))
sys.dont_write_bytecode = True

import slatedb_dump  # noqa: E402

SEED_BYTES_MAX = 16 << 10  # large seeds make a fuzzer slow and find nothing more
SEEDS_MAX = 400  # of one target
JSON_BYTES_MAX = 4 << 10


class Corpus:
    def __init__(self):
        self.seeds: dict[str, dict[bytes, None]] = {}  # by target, in the order of adding, each once

    def add(self, target: str, seed: bytes, limit: int = SEED_BYTES_MAX) -> None:
        if len(seed) <= limit:
            self.seeds.setdefault(target, {})[seed] = None

    def write(self, folder: Path) -> None:
        for target, seeds in sorted(self.seeds.items()):
            (folder / target).mkdir(parents=True, exist_ok=True)
            count = min(len(seeds), SEEDS_MAX)
            every = list(seeds)
            for number in range(count):  # evenly over all fixtures
                seed = every[number * len(every) // count]
                (folder / target / hashlib.sha1(seed).hexdigest()[:16]).write_bytes(seed)
            print(f"{target}: {count} seeds")


def with_key(key: bytes) -> bytes:
    return bytes([min(len(key), 127)]) + key[:127]


def block_head(version: int, key: bytes) -> bytes:
    return bytes([min(len(key), 127) << 1 | (version - 1)]) + key[:127]


def block_v1(rows: list) -> bytes:
    """The rows as a block of version 1, which none of the fixtures has."""
    out, offsets, first = b"", b"", rows[0].key
    for number, row in enumerate(rows):
        shared = 0
        while number > 0 and shared < min(len(first), len(row.key)) and first[shared] == row.key[shared]:
            shared += 1
        flags = (1 if row.kind == "delete" else 8 if row.kind == "merge" else 0)
        flags |= (2 if row.expire_ts is not None else 0) | (4 if row.create_ts is not None else 0)
        offsets += len(out).to_bytes(2, "big")
        out += shared.to_bytes(2, "big") + (len(row.key) - shared).to_bytes(2, "big") + row.key[shared:]
        out += row.seq.to_bytes(8, "big") + bytes([flags])
        for time in (row.expire_ts, row.create_ts):
            out += b"" if time is None else time.to_bytes(8, "big", signed=True)
        if flags & 1 == 0:
            out += len(row.value or b"").to_bytes(4, "big") + (row.value or b"")
    return out + offsets + len(rows).to_bytes(2, "big")


def add_stored(corpus: Corpus, codec: int, stored: bytes) -> bytes | None:
    """A stored part as a seed of `compress`. Its plain bytes, where they can be had here."""
    payload = slatedb_dump.checked(stored, "part")
    corpus.add("compress", bytes([codec]) + payload)
    if slatedb_dump.CODECS[codec] not in ("none", "zlib"):
        return None
    plain = slatedb_dump.decompressed(payload, codec, "part")
    corpus.add("compress", bytes([0x80 | plain[-1] % 5]) + plain, 4096)
    return plain


def varint(n: int) -> bytes:
    return bytes([n]) if n < 0x80 else bytes([n & 0x7F | 0x80]) + varint(n >> 7)


def opening_record(info: Any) -> bytes:
    """Of a database of this SST alone (docs/formats/snapshot.md 4.8)."""
    keys = [info.first_entry or b"", info.last_entry or info.first_entry or b""]
    blocks_end = info.filter_offset if info.filter_len else info.index_offset
    return (b"\1" + varint(400) + varint(1) + bytes(range(16)) + b"".join(varint(len(key)) + key for key in keys)
            + b"".join(varint(n) for n in (blocks_end, info.filter_len, info.index_len, info.stats_len))
            + bytes([info.compression_format, info.filter_format]))


def add_sst(corpus: Corpus, path: Path) -> None:
    data = path.read_bytes()
    corpus.add("sst_info", b"\0" + data, 4096)
    try:
        sst = slatedb_dump.Sst(path)
    except (slatedb_dump.FormatError, ValueError):
        return  # damaged on purpose: the whole file above is the seed
    if sst.is_fence_marker:
        return
    info = sst.info
    corpus.add("sst_info", b"\1" + data[sst.info_offset : len(data) - slatedb_dump.SST_FOOTER_BYTES - 4])
    key = info.first_entry or b""
    corpus.add("opening_record", opening_record(info))
    try:
        index = add_stored(corpus, info.compression_format, data[info.index_offset : info.index_offset + info.index_len])
        if info.filter_len:
            end = info.filter_offset + info.filter_len
            plain = add_stored(corpus, info.compression_format, data[info.filter_offset : end])
            if plain is not None:
                corpus.add("filter", bytes([info.filter_format]) + with_key(key) + plain)
        if index is None:
            return
        corpus.add("index", sst.blocks_end().to_bytes(4, "big") + with_key(info.last_entry or key) + index)
        for number in range(min(2, len(sst.index()))):
            start, end = sst.block_range(number)
            plain = add_stored(corpus, info.compression_format, data[start:end])
            rows = sst.block_rows(number)
            corpus.add("block", block_head(sst.version, rows[-1].key) + plain)
            if sum(len(row.key) + len(row.value or b"") for row in rows) < SEED_BYTES_MAX:
                corpus.add("block", block_head(1, rows[len(rows) // 2].key) + block_v1(rows))
    except slatedb_dump.FormatError:
        return


def add_databases(corpus: Corpus) -> None:
    """A few objects of every database, so that no single one fills the folders."""
    for case in sorted((FIXTURES / "slatedb").iterdir()):
        for pattern, count in (("*/manifest/*.manifest", 8), ("*/compacted/*.sst", 6), ("*/wal/*.sst", 3)):
            paths = sorted(case.glob(pattern))
            for path in paths[:: max(1, len(paths) // count)]:
                if path.suffix == ".sst":
                    add_sst(corpus, path)
                    if path.parent.name == "wal":
                        corpus.add("wal", b"\1\3" + path.read_bytes())
                else:
                    corpus.add("slatedb_manifest", path.read_bytes())


def small_database(sql: str, page_bytes: int) -> bytes:
    connection = sqlite3.connect(":memory:")
    connection.execute(f"PRAGMA page_size={page_bytes}")
    connection.executescript(sql)
    try:
        return connection.serialize()
    finally:
        connection.close()


def sidecar_body(page_bytes: int, pages: dict[int, bytes], chains: dict[int, list[int]]) -> bytes:
    """A sidecar's body, behind the power of its page size (sidecar_fuzz.c)."""
    def numbers(*values: int) -> bytes:
        return b"".join(value.to_bytes(4, "little") for value in values)

    offsets, starts = [0], [0]
    for page in pages.values():
        offsets.append(offsets[-1] + len(page))
    for chain in chains.values():
        starts.append(starts[-1] + len(chain))
    out = numbers(len(pages), *pages, *offsets, len(chains), *chains, *starts)
    out += numbers(*(number for chain in chains.values() for number in chain))
    return bytes([page_bytes.bit_length() - 10]) + out + b"".join(pages.values())


def add_sidecars(corpus: Corpus) -> None:
    rows = "WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i+1 FROM n WHERE i<{}) INSERT INTO {} SELECT {} FROM n;"
    table = "CREATE TABLE kv (k BLOB PRIMARY KEY, v BLOB NOT NULL) WITHOUT ROWID;"
    for path in sorted((FIXTURES / "snapshots").rglob("shard.sidecar")):
        corpus.add("sidecar", b"\0" + path.read_bytes(), 64 << 10)
    for path in sorted((FIXTURES / "snapshots").rglob("shard.db")):
        corpus.add("sidecar", b"\2" + path.read_bytes(), 32 << 10)
    for sql in (
        table + rows.format(200, "kv", "printf('%04d',i), zeroblob(9)"),
        table + rows.format(9, "kv", "printf('%04d',i), zeroblob(1500)"),
        "CREATE TABLE t (a, b); CREATE INDEX i ON t (b);" + rows.format(90, "t", "i, printf('%08d',i)"),
        "CREATE TABLE t (a);" + rows.format(3, "t", "zeroblob(3000)"),
    ):
        corpus.add("sidecar", b"\2" + small_database(sql, 512))
    for flags, root, rows_root, sql in (
        (2, 1, 0, table + rows.format(200, "kv", "CAST(printf('%04d',i) AS BLOB), zeroblob(9)")),
        (2, 1, 0, table + rows.format(9, "kv", "CAST(printf('%04d%.*c',i,i*60,'k') AS BLOB), zeroblob(1500)")),
        (2, 2, 1, "CREATE TABLE kv (k BLOB UNIQUE, v);" + rows.format(90, "kv", "CAST(printf('%04d',i) AS BLOB), i")),
    ):
        for missed in (0, 16):
            corpus.add("tree", bytes([flags | missed, root, rows_root]) + small_database(sql, 512))
    leaf = bytes([10, 0, 0, 0, 1, 1, 252, 0, 1, 252]) + b"cell"
    corpus.add("sidecar", b"\1" + sidecar_body(512, {2: leaf, 7: bytes(512)}, {9: [9, 4, 3], 12: [12]}))
    corpus.add("sidecar", b"\1" + sidecar_body(4096, {1: bytes(16) + b"\x10" + bytes(4079)}, {}))
    for sidecar, etag in ((0, b'"0123456789abcdef0123456789abcdef-12"'), (1, b"x"), (1, b'"' + b"y" * 125 + b'"')):
        corpus.add("sqlite_record", b"\2" + (70_000 << sidecar).to_bytes(8, "big") + bytes([sidecar, len(etag)]) + etag)


def add_names(corpus: Corpus) -> None:
    for case in sorted((FIXTURES / "slatedb").iterdir()):
        for head, folder in ((b"\0", "manifest"), (b"\1", "wal")):
            names = sorted(path.name for path in case.glob(f"db/{folder}/*"))
            corpus.add("names", head + "\n".join(names[:40]).encode())
    corpus.add("names", b"\5wal/00000000000000000001.sst\nwal/18446744073709551616.sst\n/wal/1.sst")
    for case in sorted((FIXTURES / "snapshots").glob("*/bucket/golden/*/manifests")):
        corpus.add("manifest_name", "\n".join(sorted(path.name for path in case.iterdir())).encode())
    vectors = json.loads((FIXTURES / "vectors" / "manifest_names.json").read_text())
    for name in [case["dir_name"] for case in vectors["dirs"]] + [case["ref"] for case in vectors["run_id_from_ref"]]:
        corpus.add("manifest_name", name.encode("utf-8", "surrogatepass"))


def add_expressions(corpus: Corpus) -> None:
    for name in ("cel.json", "cel_conformance.json"):
        for case in json.loads((FIXTURES / "vectors" / name).read_text())["cases"]:
            corpus.add("cel", case["expr"].encode())


def add_postgres_rows(corpus: Corpus) -> None:
    """As the statement that reads a manifest answers; a row with everything, and one with nothing that need not be."""
    head = {
        "run_id": "r", "created_at_us": 1767225600000001, "num_dbs": 3, "s3_prefix": "s3://b/p", "key_col": "_key",
        "db_path_template": "db={db_id:05d}", "shard_prefix": "shards", "key_encoding": "utf8",
        "sharding": '{"strategy": "hash", "hash_algorithm": "xxh3_64"}', "custom": '{"shard_rows": 1}',
    }  # fmt: skip
    shard = [0, "s3://b/p/x", 1, 20, 300, '"a"', '"z"', "check", '{"attempt": 1, "duration_ms": 5}']
    corpus.add("postgres_rows", json.dumps({**head, "shards": [shard]}).encode())
    corpus.add("postgres_rows", json.dumps({**head, "custom": "{}", "shards": None}).encode())
    corpus.add("postgres_rows", json.dumps({**head, "shards": [[2, None, 0, 0, 0, None, None, None, None]]}).encode())


def add_snapshots(corpus: Corpus) -> None:
    vectors = FIXTURES / "vectors"
    for path in sorted((FIXTURES / "snapshots").rglob("*")):
        if path.name == "_CURRENT":
            corpus.add("current", path.read_bytes())
        elif path.name == "run.yaml":
            corpus.add("run_record", path.read_bytes())
        elif path.name == "manifest" and path.is_file():
            corpus.add("snapshot_manifest", path.read_bytes(), 64 << 10)
        if path.is_file() and path.suffix in ("", ".json") and path.stat().st_size < JSON_BYTES_MAX:
            data = path.read_bytes()
            if data[:1] in (b"{", b"["):
                corpus.add("json", data, JSON_BYTES_MAX)
    for case in json.loads((vectors / "current_pointer.json").read_text())["cases"]:
        data = bytes.fromhex(case["hex"]) if "hex" in case else case["text"].encode("utf-8", "surrogatepass")
        corpus.add("current", data)
        corpus.add("json", data)
    for case in json.loads((vectors / "run_record.json").read_text())["cases"]:
        corpus.add("run_record", case["text"].encode())
    for case in json.loads((vectors / "manifest_parse.json").read_text())["cases"]:
        if "payload_zlib_b64" in case:
            corpus.add("snapshot_manifest", zlib.decompress(base64.b64decode(case["payload_zlib_b64"])), 64 << 10)
    for path in sorted((FIXTURES / "slatedb").glob("*/*.json*")):
        line = path.read_bytes().split(b"\n", 1)[0] if path.suffix == ".jsonl" else path.read_bytes()
        corpus.add("json", line, 4096)


def add_spill(corpus: Corpus) -> None:
    rows = [(b"a", b"1"), (b"ab", b""), (b"b" * 40, b"v" * 300)]
    blocks = []
    for some in (rows[:1], rows, []):
        payload = b"".join(struct.pack("<II", len(k), len(v)) + k + v for k, v in some)
        blocks.append(struct.pack("<II", len(payload), zlib.crc32(payload)) + payload)
    for seed in (b"", blocks[0], b"".join(blocks), b"".join(blocks)[:-3], struct.pack("<II", 0xFFFFFFFF, 0)):
        corpus.add("spill", seed)


def add_shuffle(corpus: Corpus) -> None:
    rows = [(b"12345678", b"value"), (b"", b""), (b"k" * 40, b"v" * 300)]
    for count in range(len(rows) + 1):
        laid = b"".join(struct.pack("<II", len(k), len(v)) + k + v for k, v in rows[:count])
        for key_type in range(4):  # the target mends the checksum
            corpus.add("shuffle", struct.pack("<QIIIII", 0, 0x32424653, 7, count, key_type, 2) + laid)


XML_TEXTS = [
    "<Error><Code>NoSuchKey</Code><Message>The key does not exist.</Message><Key>a/b</Key><RequestId>4442587FB7D0A2F9"
    "</RequestId><HostId>x</HostId></Error>",
    "<Error><Code>PermanentRedirect</Code><Message>Use the other endpoint &amp; region</Message><Region>eu-central-1"
    "</Region></Error>",
    "<Error><Code>InvalidRange</Code><Message>Not satisfiable</Message><ActualObjectSize>4096</ActualObjectSize></Error>",
    '<?xml version="1.0" encoding="UTF-8"?>\n<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>b'
    "</Name><Prefix>a/</Prefix><KeyCount>2</KeyCount><MaxKeys>1000</MaxKeys><IsTruncated>false</IsTruncated><Contents>"
    "<Key>a/1.manifest</Key><LastModified>2026-01-02T03:04:05.000Z</LastModified><ETag>&quot;d41d8cd98f00b204&quot;</ETag>"
    "<Size>12</Size><StorageClass>STANDARD</StorageClass></Contents><Contents><Key>a/2.manifest</Key><LastModified>"
    "2026-01-02T03:04:06.000Z</LastModified><ETag>\"e\"</ETag><Size>0</Size></Contents></ListBucketResult>",
    "<ListBucketResult><IsTruncated>true</IsTruncated><NextContinuationToken>1ueGcxLPRx1Tr/XYExHnhbYLgveDs2J/wm36Hy4vbOwM="
    "</NextContinuationToken><Contents><Key>a/b%20c&#x41;</Key><Size>18446744073709551615</Size></Contents>"
    "<CommonPrefixes><Prefix>a/b/</Prefix></CommonPrefixes></ListBucketResult>",
    "<ListBucketResult><EncodingType>url</EncodingType><IsTruncated>false</IsTruncated><Contents><Key>a%2Fb+c</Key>"
    "<ETag>x</ETag><Size>1</Size></Contents></ListBucketResult>",
    "<ListBucketResult/>",
    "<InitiateMultipartUploadResult><Bucket>b</Bucket><Key>a/k</Key><UploadId>VXBsb2FkIElE.x-_~</UploadId>"
    "</InitiateMultipartUploadResult>",
    "<CompleteMultipartUploadResult><Location>http://b/a</Location><Bucket>b</Bucket><Key>a</Key><ETag>"
    "&quot;3858f62230ac3c915f300c664312c11f-9&quot;</ETag></CompleteMultipartUploadResult>",
    "<ListMultipartUploadsResult xmlns='http://s3.amazonaws.com/doc/2006-03-01/'><Bucket>b</Bucket><KeyMarker/><Prefix>a/"
    "</Prefix><EncodingType>url</EncodingType><NextKeyMarker>a/k+2%25</NextKeyMarker><NextUploadIdMarker>U2</NextUploadIdMarker>"
    "<MaxUploads>1000</MaxUploads><IsTruncated>true</IsTruncated><Upload><Key>a/k+1%2F</Key><UploadId>U1</UploadId><Initiator>"
    "<ID>i</ID></Initiator><StorageClass>STANDARD</StorageClass><Initiated>2026-01-02T03:04:05.000Z</Initiated></Upload>"
    "<Upload><Initiated>2026-01-02T03:04:06Z</Initiated><Key>a/k</Key><UploadId>U2</UploadId></Upload>"
    "</ListMultipartUploadsResult>",
    "<ListMultipartUploadsResult><IsTruncated>false</IsTruncated></ListMultipartUploadsResult>",
    "<DeleteResult><Deleted><Key>a/1</Key></Deleted><Error><Key>a/2</Key><Code>AccessDenied</Code><Message>no</Message>"
    "</Error></DeleteResult>",
    '<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;">]><ListBucketResult><Contents><Key>&b;</Key></Contents>'
    "</ListBucketResult>",
    "<html><body><h1>502 Bad Gateway</h1></body></html>",
]

INI_TEXTS = [
    "[default]\naws_access_key_id = AKIAIOSFODNN7EXAMPLE\naws_secret_access_key = wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY\n",
    "[default]\nregion=eu-west-1\n\n[profile dev]\nregion = us-east-2 \nsource_profile = default\nrole_arn=arn:aws:iam::1:role/x\n",
    "# a comment\n; another\n[ dev ]\r\naws_access_key_id\t=\tA\r\naws_session_token = t=o=k==\r\n",
    "[default]\ns3 =\n    max_concurrent_requests = 20\n    addressing_style = path\nendpoint_url = http://127.0.0.1:9000\n",
    "[profile sso]\ncredential_process = /bin/echo \"x\" # not a comment\n[broken\nkey\n=value\n[]\n",
    "\ufeff[default]\naws_access_key_id = \u00e9\n",
]

URLS = [
    "https://s3.eu-west-1.amazonaws.com", "http://user:pass@[::1]:9000/a%20b/?x=1&y=2", "s3://bucket/run_id=1/a b",
    "file:///tmp/x", "http://h:65536/", "http://[::1", "HTTP://b%C3%BCcher.example:80?q", "100%", "%zz", "a+b",
]

RESPONSES = [
    (206, 100, 3, b"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 4-6/10\r\nETag: \"e\"\r\n\r\n567"),
    (200, 10, 0, b"HTTP/1.1 100 Continue\r\nX-Interim: 1\r\n\r\nHTTP/1.1 200 OK\r\n x-folded\r\n\r\n" + b"x" * 300),
    (503, 5, 700, b"HTTP/1.1 503 Busy\r\nRetry-After:  1 \t\r\n: no name\r\n\r\n" + b"<Error/>" * 90),
]

CREDENTIAL_DOCUMENTS = [
    (0, '{"Version": 1, "AccessKeyId": "A", "SecretAccessKey": "s/+", "SessionToken": "t==", "Expiration": "2030-01-02T03:04:05Z"}'),
    (0, '{"Version": 1, "AccessKeyId": "A", "SecretAccessKey": "s"}'),
    (1, '{"Code": "Success", "LastUpdated": "2026-01-02T03:04:05Z", "Type": "AWS-HMAC", "AccessKeyId": "A", '
        '"SecretAccessKey": "s", "Token": "t", "Expiration": "2030-01-02T03:04:05.678+01:00"}'),
    (1, '{"Code": "AssumeRoleUnauthorizedAccess", "Message": "no"}'),
    (2, '{"roleCredentials": {"accessKeyId": "A", "secretAccessKey": "s", "sessionToken": "t", "expiration": 1893553445000}}'),
    (3, "<AssumeRoleWithWebIdentityResponse xmlns='https://sts.amazonaws.com/doc/2011-06-15/'>"
        "<AssumeRoleWithWebIdentityResult><Credentials><SessionToken>t</SessionToken><SecretAccessKey>s</SecretAccessKey>"
        "<Expiration>2030-01-02T03:04:05Z</Expiration><AccessKeyId>A</AccessKeyId></Credentials>"
        "</AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>"),
    (4, '{"startUrl": "https://x.awsapps.com/start", "region": "eu-west-1", "accessToken": "tok", "expiresAt": "2030-01-02T03:04:05UTC"}'),
    (5, "2026-01-02T03:04:05Z"), (5, "2026-01-02T03:04:05.678-0130"),
    (6, "/usr/bin/get-keys --profile 'a b' \"c \\\" d\" e\\ f"),
]

DATETIMES = [
    "2026-01-02T03:04:05.678901Z", "2026-01-02T03:04:05", "2026-01-02 03:04:05.5+01:00", "2026-01-02", "1767323045",
    "1767323045.25", "-1", "0001-01-01T00:00:00-23:59", "9999-12-31T23:59:59.999999999Z", "1e9", "0x10", " 12_000 ",
    "-0.5", "+3", "2026-01-02T03:04Z", "24:00:00",
]


ARROW_FORMATS = ("l", "vu", "t", "tsu:Europe/Berlin", "tdD", "tDn", "tiM", "d:38,0", "d:38,-2,256", "w:16", "+w:3", "+vL", "+ud:0,1")
NO_PROXY_LISTS = [
    "*.example.com, .internal:9000 10.0.0.0/8\ns3.example.com",
    "[::1]:443,fd00::/8,::1\n[fd12::1]",
    "localhost,127.0.0.1:80\n127.0.0.1",
]


def extent_files():
    """Their checks are made by the target."""
    for slots, places in ((64, [33]), (64, [33, 35, 36]), (1, [2]), (64, [33, 34, 900])):
        head = struct.pack("<8sIIQQ24xQ", b"SFEXTENT", 1, slots, 64 << 10, 7, 0)
        table = b"".join(struct.pack("<QIIQQ", place, place, 60 + place, 0, 0) for place in places)
        yield (head + table).ljust(33 * 64, b"\0") + struct.pack("<QQQII24xQ", 1, 2, 3, 93, 0, 0)


def image_files():
    """Their checks, and the sf_buf of each block, are made by the target."""
    for lengths in ((32,), (40, 64, 33), (200, 32, 32, 500)):
        begin = 64 + -(-16 * len(lengths) // 64) * 64
        slots, blocks = b"", b""
        for n in lengths:
            slots += struct.pack("<IIQ", (begin + len(blocks)) // 64, n, 0)
            blocks += bytes([n % 7 + 1]).ljust(-(-n // 64) * 64, b"\x05")
        head = struct.pack("<8sIIQQ32x", b"SFBLOCKS", 1, len(lengths), begin + len(blocks), 7)
        yield (head + slots).ljust(begin, b"\0") + blocks


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit("make_corpus.py DIR")
    corpus = Corpus()
    add_databases(corpus)
    add_names(corpus)
    add_expressions(corpus)
    add_postgres_rows(corpus)
    add_snapshots(corpus)
    add_sidecars(corpus)
    add_spill(corpus)
    add_shuffle(corpus)
    for text in XML_TEXTS:
        for head in range(8):
            corpus.add("s3_xml", bytes([head]) + text.encode())
    for text in INI_TEXTS:
        corpus.add("ini", text.encode())
    for text in URLS:
        corpus.add("url", text.encode())
    for text in NO_PROXY_LISTS:
        corpus.add("proxy", text.encode())
    for seed in extent_files():
        corpus.add("extent_file", seed)
    for seed in image_files():
        corpus.add("image_file", seed)
    for text in ARROW_FORMATS:
        corpus.add("arrow_format", text.encode())
    for status, bound, announced, text in RESPONSES:
        corpus.add("http_response", struct.pack(">HHH", status, bound, announced) + text)
    for head, text in CREDENTIAL_DOCUMENTS:
        corpus.add("credential_document", bytes([head]) + text.encode())
    for text in DATETIMES:
        corpus.add("datetime", text.encode())
    corpus.write(Path(sys.argv[1]))


if __name__ == "__main__":
    main()
