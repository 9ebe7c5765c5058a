"""Fills the pages that show what `make bench` has measured: in docs/performance.md, docs/tradeoffs.md and docs/scale.md what lies between a line
`<!-- made by bench/page.py: NAME -->` and the next `<!-- end -->`, and the pictures in docs/plots.

    python bench/page.py [--results FOLDER] [--check]

--check: changes nothing, and fails when something would change.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import statistics
import sys
from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import Any

from common import ROOT

DOCS = ROOT / "docs"
PAGES = ("performance.md", "tradeoffs.md", "scale.md")
BLOCK = re.compile(r"(<!-- made by bench/page\.py: (\w+) -->\n).*?(<!-- end -->)", re.S)
REST = 0.1  # processors that others may use before a run counts as disturbed
DISTRIBUTIONS = ("uniform", "hot", "zipf", "absent")
S3 = "as S3 answers"
NOTHING = "Nothing is measured yet: `make bench` fills this in.\n"
FLEETS = (1, 10, 100, 1_000, 10_000)


def number(value: float) -> str:
    """Three digits that mean something."""
    if value != 0 and abs(value) < 0.995:
        return f"{value:.2g}"
    return f"{value:,.0f}" if abs(value) >= 99.5 else f"{value:.1f}" if abs(value) >= 9.95 else f"{value:.2f}".removesuffix(".00")


class Results:
    def __init__(self, folder: Path) -> None:
        self.meta: dict[str, dict[str, Any]] = {}
        self.samples: dict[str, list[float]] = {}
        for file in sorted(folder.glob("*.json")):
            part = json.loads(file.read_text())
            self.meta[file.stem] = part["meta"]
            for r in part["results"]:
                if r["name"] in self.samples:
                    raise ValueError(f"{file}: {r['name']!r} stands in another part, too; a name says one thing")
                self.samples[r["name"]] = r["samples"]

    def median(self, name: str) -> float:
        return statistics.median(self.samples[name])

    def quantile(self, name: str, share: float) -> float:
        ordered = sorted(self.samples[name])
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))]

    def cell(self, name: str) -> str:
        """The median, and from where to where all of them lie."""
        if name not in self.samples:
            return ""
        low, high = min(self.samples[name]), max(self.samples[name])
        middle = number(self.median(name))
        return middle if number(low) == number(high) else f"{middle} ({number(low)} to {number(high)})"

    def ratio(self, a: str, b: str) -> float:
        """Of what was measured in turn, round by round."""
        first, second = self.samples[a], self.samples[b]
        if len(first) == len(second):
            return statistics.median(x / y for x, y in zip(first, second, strict=True))
        return self.median(a) / self.median(b)


def table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


# ---------------------------------------------------------------- pictures

LIGHT = {"text": "#24292f", "faint": "#d0d7de", "a": "#0969da", "b": "#bf8700", "c": "#8250df", "d": "#6e7781", "e": "#1a7f37"}
DARK = {"text": "#e6edf3", "faint": "#3d444d", "a": "#58a6ff", "b": "#d29922", "c": "#bc8cff", "d": "#8b949e", "e": "#3fb950"}


def style() -> str:
    """No background, so that the page's shows; other colours where the reader wants dark."""

    def rules(of: dict[str, str]) -> str:
        return f"text{{fill:{of['text']}}}.axis{{stroke:{of['faint']}}}.spread{{stroke:{of['text']}}}" + "".join(
            f".{name}{{fill:{of[name]}}}" for name in "abcde")

    return f"<style>text{{font:13px sans-serif}}.title{{font-weight:600}}{rules(LIGHT)}@media(prefers-color-scheme:dark){{{rules(DARK)}}}</style>"


def bars(title: str, unit: str, groups: list[tuple[str, list[tuple[str, list[float]]]]], logarithmic: bool = False) -> str:
    """Groups of bars from left to right: the median, a line from the least to the most, and the figure."""
    whos = list(dict.fromkeys(who for _, each in groups for who, _ in each))
    left, width, height, bar = 170, 760, 44.0, 16
    end = width - 75 - 6.5 * max(map(len, whos))  # behind the longest bar stand its figure and who
    values = [v for _, each in groups for _, samples in each for v in samples]
    most, least = max(values), min(v for v in values if v > 0)

    def x(value: float) -> float:
        if not logarithmic:
            return left + (end - left) * value / most
        low = math.log10(least) - 0.3
        return left + (end - left) * max(0.0, (math.log10(max(value, least)) - low) / (math.log10(most) - low))

    out = []
    for label, each in groups:
        out.append(f'<text x="8" y="{height + 12:.0f}">{escape(label)}</text>')
        for who, samples in each:
            middle, color = statistics.median(samples), "abcde"[whos.index(who) % 5]
            out.append(f'<rect class="{color}" x="{left}" y="{height}" width="{x(middle) - left:.1f}" height="{bar - 4}" rx="2"/>')
            if len(samples) > 1:
                y = height + bar / 2 - 2
                out.append(f'<line class="spread" x1="{x(min(samples)):.1f}" x2="{x(max(samples)):.1f}" y1="{y}" y2="{y}"/>')
            at = max(x(middle), x(max(samples))) + 6
            out.append(f'<text x="{at:.1f}" y="{height + bar - 5}">{number(middle)} {escape(who)}</text>')
            height += bar
        height += 10
    scale = ", logarithmic" if logarithmic else ""
    head = f'<text class="title" x="8" y="18">{escape(title)}</text><text x="8" y="35">{escape(unit)}{scale}</text>'
    axis = f'<line class="axis" x1="{left}" x2="{left}" y1="40" y2="{height}"/>'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height:.0f}" width="{width}" height="{height:.0f}" role="img" '
        f'aria-label="{escape(title)}">{style()}{head}{axis}{"".join(out)}</svg>\n'
    )


class Page:
    """What blocks hold, by name, and the pictures that they show."""

    def __init__(self, results: Results) -> None:
        self.r = results
        self.plots: dict[str, str] = {}

    def plot(self, name: str, title: str, unit: str, groups: list[tuple[str, list[tuple[str, str]]]], logarithmic: bool = False) -> str:
        """`groups`: what stands at the left, then who is told and the name of the result."""
        known = [(label, [(who, self.r.samples[name]) for who, name in each if name in self.r.samples]) for label, each in groups]
        self.plots[name] = bars(title, unit, [group for group in known if group[1]], logarithmic)
        return f"![{title}](plots/{name}.svg)\n"

    def compared(self, name: str, title: str, path: str, unit: str, cases: list[str], whos: list[str], logarithmic: bool = False) -> str:
        """A picture and a table: a row a case, a column a who."""
        label = str if len({case.rsplit(" ", 1)[0] for case in cases}) > 1 else lambda case: case.rsplit(" ", 1)[1]  # the title says the rest
        groups = [(label(case), [(who, f"{path}/{case}/{who}") for who in whos]) for case in cases if f"{path}/{case}/{whos[0]}" in self.r.samples]
        rows = [[case, *(self.r.cell(name) for _, name in each)] for case, each in groups]
        return self.plot(name, title, unit, groups, logarithmic) + "\n" + table([unit, *whos], rows)

    # ------------------------------------------------------------ docs/performance.md

    def machine(self) -> str:
        first = next(iter(self.r.meta.values()))
        others = max((meta["processors that others used"] for part, meta in self.r.meta.items() if part != "fleet"), default=0.0)  # that tells nothing by the clock
        took = sum(meta["seconds"] for meta in self.r.meta.values())
        commits = {meta["commit"] for meta in self.r.meta.values()}
        rest = (
            "The machine was at rest."
            if others <= REST
            else f"**The machine was not at rest**: programs of others took up to {number(others)} of its {first['processors']} processors meanwhile, so "
            "what is told by the clock is worth little, and processor time is more than it would be at rest."
        )
        rows = [[name, str(first[name])] for name in ("processor", "processors", "memory GiB", "system", "compiler", "Python", "beside", "date")]
        rows.append(["commit", ", ".join(sorted(commits))])
        return f"{table(['machine', ''], rows)}\nMeasuring took {took / 60:.0f} minutes. {rest}\n"

    def targets(self) -> str:
        r, cold = self.r, "cold multi_get/{} keys, over gaps as by default"

        def wheel_key(count: int) -> float:
            return min(r.median(f"multi_get({count}), by the clock/100B uniform/wheel, gather"), r.median("await get, by the clock/100B uniform/wheel"))

        def batch(count: int) -> float:
            return r.median(f"multi_get({count}), by the clock/100B uniform/ours")

        def plainly(count: int) -> float:
            case = f"{cold.format(count)}, {S3}"
            return r.ratio(f"{case}/ours", f"{case}/GETs by libcurl")

        def added_p99() -> float:
            return r.quantile("cold get/on loopback/ours", 0.99) - r.quantile("cold get/on loopback/GET by libcurl", 0.99)

        def a_shard() -> float:
            return (r.median("open/128 shards/requests") - r.median("open/8 shards/requests")) / 120

        most, least = "at most", "at least"
        rows: list[tuple[str, str, float, str, Callable[[], float]]] = [
            ("C `try_get`, uniform", most, 1, "times LMDB", lambda: r.ratio("get/100B uniform/ours", "get/100B uniform/lmdb")),
            ("C `multi_get` of 1,000, a key", most, 0.3, "of a single `try_get`", lambda: r.ratio("multi_get(1000) in C/100B uniform/ours", "get/100B uniform/ours")),
            ("C, an absent key", most, 1, "times a hit", lambda: r.ratio("get/100B absent/ours", "get/100B uniform/ours")),
            ("C `try_get`, two threads", least, 1.8, "times one thread",
             lambda: r.ratio("get by 2 threads/100B uniform/ours", "get by 1 threads/100B uniform/ours")),
            ("`await get`, hot", most, 4, "times asyncio's floor", lambda: r.ratio("await get/100B hot/ours", "await get/100B hot/floor")),
            ("`await get`, hot", least, 250, "times the wheel",
             lambda: r.ratio("await get, by the clock/100B hot/wheel", "await get, by the clock/100B hot/ours")),
            ("`multi_get(1000)`, uniform", least, 600, "times the wheel", lambda: wheel_key(1000) / batch(1000)),
            ("`multi_get(10000)`, uniform", least, 300, "times the wheel", lambda: wheel_key(10000) / batch(10000)),
            ("`multi_get(1000)`, uniform", most, 3, "times a dict's loop",
             lambda: r.ratio("multi_get(1000)/100B uniform/ours", "multi_get(1000)/100B uniform/dict loop")),
            ("`multi_get(10000)`, uniform", most, 3, "times a dict's loop",
             lambda: r.ratio("multi_get(10000)/100B uniform/ours", "multi_get(10000)/100B uniform/dict loop")),
            ("blocking `get` by 4 threads", least, 1, "times one",
             lambda: r.ratio("get in Python, by threads/100B uniform/4 threads", "get in Python, by threads/100B uniform/1 threads")),
            ("a cold `get`", most, 1, "requests", lambda: r.median("cold get/of a key/requests")),
            ("a cold `get`, p99 above the GET alone", most, 0.3, "ms", added_p99),
            ("a cold `multi_get` of 1,000", most, 2, "trips", lambda: r.median(f"{cold.format(1000)}/trips")),
            ("a cold `multi_get` of 10,000", most, 2, "trips", lambda: r.median(f"{cold.format(10000)}/trips")),
            ("a cold `multi_get` of 10,000", most, 0.33, "of the requests for each block by itself",
             lambda: r.ratio(f"{cold.format(10000)}/requests", "cold multi_get/10000 keys, neighbours only/requests")),
            ("a cold `multi_get` of 1,000", most, 1.3, "times its GETs alone", lambda: plainly(1000)),
            ("a cold `multi_get` of 10,000", most, 1.3, "times its GETs alone", lambda: plainly(10000)),
            ("opening 128 shards", most, 3, "trips", lambda: r.median("open/128 shards/trips")),
            ("opening, another shard", most, 1, "requests", a_shard),
            ("a refresh that finds nothing", most, 1, "requests, a 304", lambda: r.median("refresh/128 shards/requests")),
            ("a scan in C, a row", most, 2, "times LMDB's cursor", lambda: r.ratio("scan/100B/ours", "scan/100B/lmdb")),
            *([("a scan from files in C", least, 0.7, "times a plain loop's rate",
                lambda: r.ratio("scan from files/100B/plain loop", "scan from files/100B/ours"))] if "scan from files/100B/ours" in r.samples else []),
            ("a scan in Python, as batches", least, 3_000_000, "rows/s", lambda: r.median("scan in Python/100B/batches")),
            ("a scan in Python, as batches", least, 500, "times the wheel's next()",
             lambda: r.ratio("scan in Python/100B/batches", "scan in Python/100B/wheel, next")),
            ("publishing Arrow batches of 100 B rows", least, 65, "times the wheel's rows/s", lambda: r.ratio("publish/100B/arrow", "publish/100B/wheel")),
            ("a hit of the disk cache", most, 3, "preads", lambda: r.median("disk hit/4 KiB/preads")),
        ]  # fmt: skip
        out = []
        for what, sense, bound, unit, measure in rows:
            value = measure()
            met = value <= bound * 1.0001 if sense == most else value >= bound
            out.append([what, f"{sense} {number(bound)} {unit}", number(value), "yes" if met else "**no**"])
        kept = sum(row[3] == "yes" for row in out)
        return f"{kept} of {len(out)} hold.\n\n" + table(["", "target", "measured", "holds"], out)

    def get_c(self) -> str:
        whos = ["ours", "lmdb", "rocksdb", "hash table"]
        out = []
        for name, title in (("100B", "1,000,000 rows of 100 B"), ("1KiB", "200,000 rows of 1 KiB"), ("100B, 10 million rows", "10,000,000 rows of 100 B")):
            cases = [f"{name} {d}" for d in DISTRIBUTIONS]
            if f"get/{cases[0]}/ours" in self.r.samples:
                plot = f"get-c-{name.split(',')[0].lower()}{'-large' if ',' in name else ''}"
                out.append(self.compared(plot, f"A look-up in memory, in C: {title}", "get", "ns", cases, whos))
        return "\n".join(out)

    def multi_get_c(self) -> str:
        paths = (("one by one", "get"), ("batches of 100", "multi_get(100) in C"), ("batches of 1,000", "multi_get(1000) in C"))
        groups = [(f"{label}, {d}", [(who, f"{path}/100B {d}/{who}") for who in ("ours", "rocksdb")]) for d in ("uniform", "hot") for label, path in paths]
        rows = [[label, *(self.r.cell(name) for _, name in each)] for label, each in groups]
        return self.plot("multi-get-c", "A key of a batch in memory, in C: 1,000,000 rows of 100 B", "ns a key", groups) + "\n" + table(["ns a key", "ours", "rocksdb"], rows)

    def threads_c(self) -> str:
        whos = ["ours", "lmdb", "rocksdb", "hash table"]
        groups = [(f"{n} thread{'s' * (n > 1)}", [(who, f"get by {n} threads/100B uniform/{who}") for who in whos]) for n in (1, 2, 4)]
        rows = [[label, *(self.r.cell(name) for _, name in each)] for label, each in groups]
        shown = [(label, each[:3]) for label, each in groups]
        return self.plot("threads-c", "Look-ups by several threads, all together: 1,000,000 rows of 100 B, uniform", "million a second", shown) + "\n" + table(
            ["million a second", *whos], rows)

    def await_get(self) -> str:
        cases = [f"100B {d}" for d in DISTRIBUTIONS] + ["1KiB uniform"]
        clock = "await get, by the clock"
        groups = [(case, [("ours", f"{clock}/{case}/ours"), ("slatedb wheel", f"{clock}/{case}/wheel"), ("asyncio's floor", f"await get/{case}/floor")]) for case in cases]
        rows = [[case, self.r.cell(f"await get/{case}/ours"), self.r.cell(f"await get/{case}/floor"),
                 number(self.r.ratio(f"await get/{case}/ours", f"await get/{case}/floor")), self.r.cell(f"{clock}/{case}/ours"),
                 self.r.cell(f"{clock}/{case}/wheel"), number(self.r.ratio(f"{clock}/{case}/wheel", f"{clock}/{case}/ours"))] for case in cases]  # fmt: skip
        head = ["ns", "ours, processor", "floor, processor", "times the floor", "ours, clock", "wheel, clock", "the wheel is so many times slower"]
        return self.plot("await-get", "await reader.get(key), in memory", "ns, by the clock", groups, logarithmic=True) + "\n" + table(head, rows)

    def multi_get_python(self) -> str:
        groups, rows = [], []
        for count in (1000, 10000):
            for distribution in ("uniform", "hot"):
                case, path = f"100B {distribution}", f"multi_get({count})"
                each = [("asynchronous", f"{path}/{case}/ours"), ("blocking", f"{path}/{case}/ours, blocking"), ("a dict's loop", f"{path}/{case}/dict loop"),
                        ("fresh values into a dict, in C", f"{path}/{case}/floor")]  # fmt: skip
                groups.append((f"{count:,}, {distribution}", each))
                wheel, ours = f"{path}, by the clock/{case}/wheel, gather", f"{path}, by the clock/{case}/ours"
                rows.append([groups[-1][0], *(self.r.cell(name) for _, name in each), self.r.cell(ours), self.r.cell(wheel),
                             number(self.r.ratio(wheel, ours))])  # fmt: skip
        head = ["ns a key", "asynchronous", "blocking", "a dict's loop", "fresh values into a dict, in C", "asynchronous, clock", "wheel, gathered, clock", "the wheel is so many times slower"]
        return self.plot("multi-get-python", "multi_get in Python, in memory: 1,000,000 rows of 100 B", "ns a key, processor", groups) + "\n" + table(head, rows)

    def get_python(self) -> str:
        cases = [f"{name} {d}" for name in ("100B", "1KiB") for d in DISTRIBUTIONS]
        path = "get in Python, by threads"
        threads = [
            [f"{n} thread{'s' * (n > 1)}", *(self.r.cell(f"{path}{what}/{name} uniform/{n} threads") for what in ("", ", processor") for name in ("100B", "1KiB"))]
            for n in (1, 2, 4)
        ]
        return self.compared("get-python", "reader.get(key), blocking, in memory", "get in Python", "ns", cases, ["ours", "sqlite3", "dict"], True) + "\n" + table(
            ["all threads together", "100B, million a second", "1KiB, million a second", "100B, ns of a processor each", "1KiB, ns of a processor each"], threads)

    def cold_get(self) -> str:
        rows, groups = [], []
        for where in ("on loopback", S3):
            names = [(who, f"cold get/{where}/{who}") for who in ("ours", "GET by libcurl")]
            for share, label in ((0.5, "p50"), (0.9, "p90"), (0.99, "p99")):
                figures = [self.r.quantile(name, share) for _, name in names]
                rows.append([f"{where}, {label}", *map(number, figures), number(figures[0] - figures[1])])
                if where == S3:
                    groups.append((label, [(who, [figure]) for (who, _), figure in zip(names, figures, strict=True)]))
        title = "A cold get, as S3 answers"
        self.plots["cold-get"] = bars(title, "ms", groups)
        counted = table(["", "trips", "requests", "bytes"], [
            ["a key", *(self.r.cell(f"cold get/of a key/{what}") for what in ("trips", "requests", "bytes"))],
            ["an absent key", "", self.r.cell("cold get/of an absent key/requests"), ""]])  # fmt: skip
        return f"![{title}](plots/cold-get.svg)\n\n{table(['ms', 'ours', 'GET by libcurl', 'more'], rows)}\n{counted}"

    def cold_multi_get(self) -> str:
        cases = [f"{count} keys, {gap}" for count in (1000, 10000) for gap in ("neighbours only", "over gaps as by default")]
        whos = ("ours", "GETs by libcurl")
        groups = [(case, [(who, f"cold multi_get/{case}, {S3}/{who}") for who in whos]) for case in cases]
        rows = [[case, *(self.r.cell(f"cold multi_get/{case}/{what}") for what in ("trips", "requests", "at once")), number(self.r.median(f"cold multi_get/{case}/bytes") / 1e6),
                 *(self.r.cell(name) for _, name in each), number(self.r.ratio(each[0][1], each[1][1]))] for case, each in groups]  # fmt: skip
        return self.plot("cold-multi-get", "A batch with nothing in memory, as S3 answers", "ms", groups) + "\n" + table(
            ["", "trips", "requests", "at once", "MB", "ours, ms", "the same GETs by libcurl, ms", "times"], rows)

    def opening(self) -> str:
        cases = [f"{n} shards" for n in (1, 8, 32, 128) if f"open/{n} shards/trips" in self.r.samples]
        rows = [[case, *(self.r.cell(f"open/{case}/{what}") for what in ("trips", "requests", "at once", "connections", "bytes")), self.r.cell(f"open/{case}, {S3}/ours"),
                 self.r.cell(f"refresh/{case}/requests"), self.r.cell(f"refresh/{case}/answered 304")] for case in cases]  # fmt: skip
        head = ["", "trips", "requests", "at once", "connections", "bytes", f"ms, {S3}", "refresh: requests", "of them 304"]
        memory = next(name for name in self.r.samples if name.startswith("memory of a shard/"))
        return (
            self.plot("open", "Opening, as S3 answers", "ms", [(case, [("", f"open/{case}, {S3}/ours")]) for case in cases])
            + "\n" + table(head, rows)
            + f"\nAn open shard of 4,000 rows of 100 B takes {self.r.cell(memory)} KiB of resident memory, index and filter among them.\n"
        )

    def scan(self) -> str:
        whos = ["ours", "lmdb", "rocksdb"]
        rows = [["by the clock", name, *(self.r.cell(f"scan/{name}/{who}") for who in whos)] for name in ("100B", "1KiB")]
        rows += [["processor, all threads", name, *(self.r.cell(f"scan, processor/{name}/{who}") for who in whos)] for name in ("100B", "1KiB")]
        in_python = ["rows", "batches", "wheel, next", "wheel, next_batch", "sqlite3, rows"]
        groups = [(name, [(who, f"scan in Python/{name}/{who}") for who in in_python]) for name in ("100B", "1KiB")]
        return (
            self.plot("scan-c", "A scan of all rows in key order, in C", "ns a row, by the clock", [(n, [(w, f"scan/{n}/{w}") for w in whos]) for n in ("100B", "1KiB")])
            + "\n" + table(["ns a row", "rows", *whos], rows) + "\n"
            + self.scan_from_files()
            + self.plot("scan-python", "A scan of all rows in Python", "rows a second", groups)
            + "\n" + table(["rows a second", *in_python], [[name, *(self.r.cell(n) for _, n in each)] for name, each in groups])
        )

    def scan_from_files(self) -> str:
        whos = ["ours", "plain loop"]
        rows = [[how, name, *(self.r.cell(f"scan from files{tail}/{name}/{who}") for who in whos)]
                for how, tail in (("by the clock", ""), ("processor, all threads", ", processor")) for name in ("100B", "1KiB")]  # fmt: skip
        if "scan from files/100B/ours" not in self.r.samples:
            return ""
        return (
            "From files, nothing of which is in our memory, beside one thread that reads the same blocks, one SST after the other, checks their checksums and walks "
            "their rows (`bench/file_scan.c`):\n\n" + table(["ns a row", "rows", *whos], rows) + "\n"
        )  # fmt: skip

    def publish(self) -> str:
        whos = [("plain", "plain: sort and write, in C"), ("arrow", "Arrow batches"), ("cel", "Arrow batches, by a rule"), ("cel-inferred", "by a rule, values inferred"),
                ("rows", "Python rows"), ("wheel", "slatedb wheel, batches of 10,000")]  # fmt: skip
        rows = []
        for name in ("100B", "1KiB", "100B, 10 million rows"):
            for who, label in whos:
                if f"publish/{name}/{who}" not in self.r.samples:
                    continue
                wheel = f"publish/{name}/wheel"
                times = number(self.r.median(f"publish/{name}/{who}") / self.r.median(wheel)) if wheel in self.r.samples else ""
                rows.append([f"{name}: {label}", *(self.r.cell(f"{path}/{name}/{who}") for path in ("publish", "publish, processor", "publish, stored", "publish, memory")), times])
        groups = [("100B", [(label, f"publish/100B/{who}") for who, label in whos if who != "cel-inferred"])]
        return self.plot("publish", "Publishing 8 shards of 100 B rows to local files", "rows a second", groups) + "\n" + table(
            ["", "rows/s", "processor, us a row", "stored, B a row", "peak memory, MiB", "times the wheel's rows/s"], rows)

    def codecs(self) -> str:
        whos, case = ("none", "lz4", "snappy", "zlib", "zstd"), "JSON of 300 B"
        paths = ("codec, stored", "codec, writing", "codec, cold look-up", "codec, scan")
        rows = [[who, *(self.r.cell(f"{path}/{case}/{who}") for path in paths)] for who in whos]
        return self.plot("codecs", "What a row of JSON takes in storage", "B a row", [("JSON of some 300 B", [(w, f"codec, stored/{case}/{w}") for w in whos])]) + "\n" + table(
            ["", "stored, B a row", "writing, us a row", "a cold look-up, us", "a scan, ns a row"], rows)

    def disk(self) -> str:
        requests = [[who, *(self.r.cell(f"disk cache/{who}/{what}") for what in ("requests of opening", "requests of 10000 keys"))] for who in ("first process", "next process")]
        hit = [["a hit", self.r.cell("disk hit/4 KiB/ours"), self.r.cell("disk hit/4 KiB/preads")], ["a pread", self.r.cell("disk hit/4 KiB/pread"), "1"]]
        return table(["", "requests of opening", "requests of a batch of 10,000"], requests) + "\n" + table(["4 KiB from the page cache", "ns, processor", "preads"], hit)

    def sqlite(self) -> str:
        if "sqlite" not in self.r.meta:
            return NOTHING
        r, whos = self.r, ["ours", "ours, multi_get of 1,000", "sqlite3", "sqlite3, a cache for all"]
        ratio = number(r.ratio("SQLite get/100B uniform/ours", "SQLite get/100B uniform/sqlite3, a cache for all"))
        opened = [[who, r.cell(f"SQLite open/a copy/{who}")] for who in ("made", "there, a new process", "there, the same process")]
        scans = ["copy, forwards", "copy, backwards", "ranges, forwards", "ranges, backwards"]
        scanned = [[case, *(r.cell(f"SQLite scan/{case}/{who}") for who in scans)] for case in ("100B, in the pages", "2000B, beside the pages", "20000B, beside the pages")]
        writers = ["table", "shard", "executemany"]
        written = [[f"{path}, {case}", *(r.cell(f"{label}/{case}/{who}") for who in writers)]
                   for path, label in (("rows/s", "SQLite write"), ("processor, ns a row", "SQLite write, processor")) for case in ("100B", "2000B")]  # fmt: skip
        return (
            self.compared("sqlite-get", "A look-up in an SQLite shard, in memory, in Python", "SQLite get", "ns a key, processor", ["100B uniform"], whos)
            + f"\n`get` takes {ratio} of what `sqlite3` takes with a cache for all of the file.\n\n"
            + table([f"opening, a copy of {number(r.median('SQLite open/a copy/size'))} MB", "ms, by the clock"], opened) + "\n"
            + table(["scan, ns a row, processor of all threads", *scans], scanned) + "\n" + table(["writing", *writers], written)
        )

    # ------------------------------------------------------------ docs/tradeoffs.md

    def costs(self) -> str:
        r, get = self.r, 0.4  # dollars of a million GETs

        def row(what: str, requests: float) -> list[str]:
            return [what, number(requests * 1e6), f"${number(requests * get)}"]

        rows = [row("in memory, or in the disk cache", 0.0), row("absent keys, ruled out by the filter", r.median("cold get/of an absent key/requests")),
                row("cold, one by one", r.median("cold get/of a key/requests"))]  # fmt: skip
        for count in (1000, 10000):
            for gap in ("over gaps as by default", "neighbours only"):
                rows.append(row(f"cold, batches of {count:,}, {gap}", r.median(f"cold multi_get/{count} keys, {gap}/requests") / count))
        opened = [[f"opening {n} shards, a million times", number(r.median(f"open/{n} shards/requests") * 1e6), f"${number(r.median(f'open/{n} shards/requests') * get)}"] for n in (8, 128)]
        polls = ["a poll that finds nothing, a million times", number(r.median("refresh/8 shards/requests") * 1e6), f"${number(r.median('refresh/8 shards/requests') * get)}"]
        return table(["a million look-ups", "requests", "dollars"], [*rows, *opened, polls])

    # ------------------------------------------------------------ docs/scale.md

    def first_value(self) -> str:
        counts = (8, 128, 1_000, 10_000, 100_000)
        whos = ["as it is, p50", "as it is, p99", "hedged, p50", "hedged, p99", "lazy, p50", "lazy, p99"]
        groups = [(f"{n:,} shards", [(who, f"time to first value/{n} shards/{who}") for who in ("as it is, p99", "hedged, p99", "lazy, p99")]) for n in counts]
        rows = [[f"{n:,}", *(self.r.cell(f"time to first value/{n} shards/{who}") for who in whos)] for n in counts]
        return self.plot("first-value", "From opening to the first value", "ms", groups, logarithmic=True) + "\n" + table(["shards, ms", *whos], rows)

    def tails(self) -> str:
        whos, whats = ("not hedged", "share of 5%", "share of 10%"), ("p50", "p99", "p999", "mean", "requests more")
        rows = [[f"{case}, {who}", *(self.r.cell(f"hedged/{case}/{who}, {what}") for what in whats)] for case in ("a look-up", "a wave of 128") for who in whos]
        return table(["", "p50, ms", "p99, ms", "p999, ms", "mean, ms", "% more requests"], rows)

    def storms(self) -> str:
        """A picture for 128 shards, a table for each number of shards."""

        def cells(case: str, who: str) -> list[str]:
            if f"{case}/{who}, p99" not in self.r.samples:
                return [""] * 4
            whats = ("most a second", "refused", "pods that give up once")
            return [*(self.r.cell(f"{case}/{who}, {what}") for what in whats), number(self.r.median(f"{case}/{who}, p99") / 1e3)]

        head = ["pods", "requests", "at S3's rate, s"] + [f"{who}: {what}" for who in ("in step", "jitter") for what in ("most a second", "% refused", "% give up", "p99, s")]
        tables = []
        for shards in (8, 128, 1_000):
            cases = [(fleet, f"refresh storm/{fleet} pods, {shards} shards") for fleet in FLEETS]
            rows = [[f"{fleet:,}", number(self.r.median(f"{case}/requests")), number(self.r.median(f"{case}/at S3's rate")), *cells(case, "in step"), *cells(case, "jitter 10%")]
                    for fleet, case in cases if f"{case}/requests" in self.r.samples]  # fmt: skip
            tables.append(f"\n{shards:,} shards:\n\n{table(head, rows)}")
        groups = [(f"{fleet:,} pods", [(who, f"refresh storm/{fleet} pods, 128 shards/{who}, p99") for who in ("in step", "jitter 10%")]) for fleet in FLEETS]
        return self.plot("storm", "A refresh of 128 shards that all changed, p99 of a pod", "ms", groups, logarithmic=True) + "".join(tables)

    def sick(self) -> str:
        policies = ("no retries", "retries", "retries, hedged as built", "retries, hedged without a budget")
        whats = ("sent while sick", "look-ups that fail", "while sick, p50", "while sick, p99", "slow look-ups end after")
        rows = [[policy, *(self.r.cell(f"sick store/{policy}/{what}") for what in whats)] for policy in policies]
        return self.plot("sick", "Requests that a sick store is sent, for 4,000 look-ups a second", "requests a second",
                         [("", [(p, f"sick store/{p}/sent while sick") for p in policies])]) + "\n" + table(
            ["", "requests/s", "% that fail", "p50, ms", "p99, ms", "the last slow one, s after"], rows)  # fmt: skip

    def by_size(self) -> str:
        whats = ("shards", "filters and indexes", "publishing, 1 machines", "publishing, 10 machines", "publishing, 100 machines", "dollars of publishing", "dollars of storing a month")
        rows = [[f"{gb:,} GB", *(self.r.cell(f"size/{gb} GB/{what}") for what in whats)] for gb in (1, 10, 100, 1_000, 10_000)]
        return table(["data", "shards", "filters and indexes, GB", "publishing, s: 1 machine", "10", "100", "publishing, $", "storing, $ a month"], rows)

    def money(self) -> str:
        whats = ("polling", "opening 8 shards", "opening 128 shards", "opening 1000 shards", "1 cold look-up a second and pod", "cold look-ups a second and pod that S3 takes")
        rows = [[f"{fleet:,}", *(self.r.cell(f"dollars a month/{fleet} pods/{what}") for what in whats)] for fleet in FLEETS]
        return table(["pods, $ a month", "polling every 30 s", "24 snapshots a day: 8 shards", "128", "1,000", "a cold look-up a second and pod", "cold look-ups a second and pod at S3's rate"], rows)


def made(results: Results) -> dict[Path, str]:
    """All files as they should be."""
    page, out = Page(results), {}

    def fill(match: re.Match[str]) -> str:
        block = getattr(page, match[2], None)
        if block is None:
            raise SystemExit(f"page.py makes no block {match[2]}")
        text = block() if results.meta else NOTHING
        return f"{match[1]}{text}{match[3]}"

    for name in PAGES:
        out[DOCS / name] = BLOCK.sub(fill, (DOCS / name).read_text(encoding="utf-8"))
    return out | {DOCS / "plots" / f"{name}.svg": svg for name, svg in page.plots.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=ROOT / "bench" / "results")
    parser.add_argument("--check", action="store_true")
    args = parser.parse_args()
    files = made(Results(args.results))
    stale = [path for path in (DOCS / "plots").glob("*.svg") if path not in files]
    if args.check:
        wrong = [path for path, text in files.items() if not path.exists() or path.read_text(encoding="utf-8") != text] + stale
        for path in wrong:
            print(f"{path.relative_to(ROOT)} is not what bench/page.py makes of the results: run it", file=sys.stderr)
        return 1 if wrong else 0
    (DOCS / "plots").mkdir(exist_ok=True)
    for path in stale:
        path.unlink()
    for path, text in files.items():
        path.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
