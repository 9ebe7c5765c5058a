"""The golden data under tests/fixtures, as Python objects."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
FIXTURES = ROOT / "tests" / "fixtures"


def typed(value: dict[str, Any]) -> Any:
    """A typed value of the golden files, such as {"int": "5"}."""
    ((kind, text),) = value.items()
    return {
        "int": int,
        "str": str,
        "bytes": bytes.fromhex,
        "bytearray": bytearray.fromhex,
        "double": float,
        "bool": bool,
        "null": lambda _: None,
        "str_utf16be": lambda text: bytes.fromhex(text).decode("utf-16-be", "surrogatepass"),
    }[kind](text)


@cache
def vectors(name: str) -> dict[str, Any]:
    return json.loads((FIXTURES / "vectors" / f"{name}.json").read_text())


@dataclass(frozen=True)
class Case:
    """One golden snapshot and what its writer's own reader answered."""

    name: str
    expected: dict[str, Any]

    @property
    def folder(self) -> Path:
        return FIXTURES / "snapshots" / self.name / "bucket" / "golden" / self.name

    @property
    def prefix(self) -> str:
        return self.folder.as_uri()

    @property
    def lookups(self) -> list[tuple[Any, int, bytes | None]]:
        """(key, shard, value) of those that succeed; shard is -1 where it was not recorded."""
        return [
            (typed(one["key"]), one.get("db_id", -1), None if one["value"] is None else bytes.fromhex(one["value"]))
            for one in self.expected["lookups"]
            if "value" in one
        ]

    @property
    def readable(self) -> bool:
        """Through every way of putting a reader together: SlateDB shards, HASH routing."""
        return self.expected["backend"] == "slatedb" and self.hash

    @property
    def hash(self) -> bool:
        return self.expected.get("sharding", {"strategy": "hash"})["strategy"] == "hash"


@cache
def case(name: str) -> Case:
    return Case(name, json.loads((FIXTURES / "snapshots" / name / "expected.json").read_text()))


CASES = [case(path.parent.name) for path in sorted((FIXTURES / "snapshots").glob("*/expected.json"))]
OPENING = [c for c in CASES if c.readable and c.expected["open"]["outcome"] == "ok"]
CEL = [c for c in CASES if not c.hash and c.expected["open"]["outcome"] == "ok"]
SQLITE = [c for c in CASES if c.expected["backend"] == "sqlite" and c.hash]
