"""The page of `shardy stats --html`: it stands alone, says what the command says, and no name gets out of its place."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

from test_cli import POINTER, shardy

from shardyfusion import HashShardedWriteConfig, PythonRecordInput, WriterOutputConfig
from shardyfusion.writer.python import write_hash_sharded

ROWS = PythonRecordInput[int](key_fn=lambda n: n, value_fn=lambda n: bytes(n % 50))


class Page(HTMLParser):
    """Elements, texts of each kind of element, and whether all that opens is closed."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[str] = []
        self.texts: dict[str, list[str]] = {}
        self.attributes: set[str] = set()
        self.feed(path.read_text())
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)
        self.attributes |= {name for name, _ in attrs}
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.setdefault(self.open[-1] if self.open else "", []).append(data)


def page_of(pointer: Path, tmp_path: Path) -> tuple[Page, dict[str, object]]:
    file = tmp_path / "page.html"
    done = shardy("stats", "--html", str(file), pointer=pointer)
    assert done.returncode == 0, done.stderr
    return Page(file), json.loads(done.stdout)


def bars(page: Page, kind: str) -> list[int]:
    said = [text for text in page.texts["title"] if text.startswith(kind) and text.endswith(" rows")]
    return [int(text.split(": ")[1].removesuffix(" rows").replace(",", "")) for text in said]


def test_it_says_what_the_command_says(tmp_path: Path) -> None:
    page, told = page_of(POINTER, tmp_path)
    rows = bars(page, "shard ")
    assert (len(rows), sum(rows), min(rows), max(rows)) == (told["num_dbs"], told["rows"], told["least_rows"], told["most_rows"])
    sizes = [text for text in page.texts["title"] if re.match(r"\d+ to \d+ bytes: ", text)]
    assert len(sizes) == len(told["keys"]) + len(told["values"])  # type: ignore[arg-type]
    assert page.elements.count("svg") == 4 and page.elements.count("tr") == 5
    assert "1.20" in page.texts["b"]


def test_it_needs_nothing_else(tmp_path: Path) -> None:
    page, _ = page_of(POINTER, tmp_path)
    assert not {"script", "link", "img", "iframe", "object"} & set(page.elements)
    assert not {"src", "href", "onload", "onclick"} & page.attributes
    assert "prefers-color-scheme:dark" in page.texts["style"][0] and "url(" not in page.texts["style"][0]


def test_names_stay_in_their_place(tmp_path: Path) -> None:
    folder = tmp_path / "<script>alert(1)</script>&\"'\u202e"
    output = WriterOutputConfig(run_id='<b onload="x">&amp;')
    write_hash_sharded(range(10), HashShardedWriteConfig(num_dbs=2, s3_prefix=folder, output=output), ROWS)
    page, _ = page_of(folder, tmp_path)
    assert page.texts["h1"] == ['Snapshot <b onload="x">&amp;']
    assert "script" not in page.elements and "onload" not in page.attributes
    assert "\u202e" not in (tmp_path / "page.html").read_text()


def test_many_shards_and_no_rows(tmp_path: Path) -> None:
    for shards, rows in ((300, 2000), (2, 0)):
        prefix = tmp_path / str(shards)
        write_hash_sharded(range(rows), HashShardedWriteConfig(num_dbs=shards, s3_prefix=prefix), ROWS)
        page, told = page_of(prefix, tmp_path)
        found = bars(page, "shard ")
        assert len(found) == (150 if shards == 300 else 2) and max(found) == told["most_rows"]
        assert page.elements.count("tr") == 1 + shards
        assert (tmp_path / "page.html").stat().st_size < 300_000


def test_it_cannot_be_written(tmp_path: Path) -> None:
    done = shardy("stats", "--html", str(tmp_path / "none" / "page.html"), pointer=POINTER)
    assert done.returncode == 1 and done.stdout == "" and "page.html cannot be written: No such file" in done.stderr
    done = shardy("stats", "--html", "/dev/full", pointer=POINTER)
    assert done.returncode == 1 and done.stdout == "" and "/dev/full could not be written" in done.stderr
