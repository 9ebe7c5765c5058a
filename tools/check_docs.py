#!/usr/bin/env python3
"""Pages and comments name what there is: fail on a link, an anchor, a file, a section or a test that does not exist.

A file may be named by the end of its path (`store/s3.c`, `s3.c`). What is checked:
- pages: links with anchors; what looks like a file and stands in backticks, or begins with a folder of this project
- a file of tests and a name behind it, both in backticks: the file has such a test; so do the
  tables of failures.md and security.md, with quoted cases
- every file with a lock stands in docs/threads.md
- every page of the site stands in a table of contents (`toctree`), so that a reader finds it
- public headers: a comment covers every function but the initialisers of options, which base.h explains: above it or its group,
  or on its line; that of one that gives away an object tells how it is released; the comment on top tells the thread rule;
  numbers that are durations, sizes or counts by their names tell the unit, there or in the comment
- comments and docstrings: files by their names, pages with the sections that are told ("docs/formats/slatedb.md 5.4")
"""

import ast
import fnmatch
import io
import re
import sys
import tokenize
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("bench", "cli", "docs", "examples", "include", "python", "src", "tests", "tools")
TABLES = ("docs/failures.md", "docs/security.md")  # their last column names tests

SUFFIXES = "md|c|h|py|pyi|sh|supp"
NAME = rf"[\w*.-]+(?:/[\w*.-]+)*\.(?:{SUFFIXES})"
FILE = re.compile(rf"(?<![\w*/.<>{{}}$:~-]){NAME}(?![\w/{{-]|\.\w)")
OURS = re.compile(rf"(?<![\w*/.<>{{}}$:~-])(?:{'|'.join(FOLDERS)})/[\w*.-]+(?:/[\w*.-]+)*/?")
CODE = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"\[[^\]\n]*\]\(([^)\s]+)\)")
TOCTREE = re.compile(r"^```\{toctree\}\n(.*?)^```$", re.M | re.S)
HEADING = re.compile(r"^#+\s+(.*?)\s*#*$", re.M)
SECTIONS = re.compile(r"([\w./-]+\.md),?(?: sections?)? (\d+(?:\.\d+)*(?:, \d+\.\d+)*)(?![\w%])")
TESTED = re.compile(r"`([\w./]+\.(?:c|py))`((?:(?:, | and )`[a-z]\w+`(?!\())+)")
CASE = re.compile(r'"([^"]+?)(?: ?\.\.\.)?"')
COMMENT = re.compile(r'"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'|(/\*.*?\*/|//[^\n]*)', re.S)
ELSEWHERE = re.compile(r"^<!-- other projects' files, not ours -->$.*?(?=^#|\Z)", re.M | re.S)
LOCK = re.compile(r"^\s*(?:static |_Alignas\(\d+\) )*(?:sf_mutex|pthread_(?:mutex|rwlock)_t) \w+(?: = \w+)?;", re.M)
PYTHON_LOCK = re.compile(r"^[^#\n]*\b(?:add_locks\(self|threading\.(?:Lock|RLock|Condition)\(\)|asyncio\.Lock\(\))", re.M)
NUMBERS = re.compile(r"\b(?:u?int(?:8|16|32|64)_t|size_t|double|float|unsigned|int|long) \*?(\w+)((?:, \w+)*)(?=[,;)])")
# How names end that leave the unit open, and what then says it.
UNITS = (
    (re.compile(r"(?:^|_)(?:timeout|interval|duration|lease|heartbeat|delay|age|wait|elapsed|deadline|jitter)$"), re.compile(r"\b(?:ms|\w*seconds?|hours|days|share)\b")),
    (re.compile(r"(?:^|(?<!refused)_)(?:size|len|length|capacity|budget|memory|room)$"), re.compile(r"\b(?:bytes?|sizeof|filled by the initialiser|rows|entries)\b")),
    (re.compile(r"^(?:count|limit)$"), re.compile(r"[a-z]{2}")),
)
INCLUDE = re.compile(r'^\s*#\s*include\s+[<"]([^>"]+)[>"]', re.M)


def tree() -> set[str]:
    files = {path.name for path in ROOT.iterdir() if path.is_file()}
    for folder in FOLDERS:
        files |= {path.relative_to(ROOT).as_posix() for path in (ROOT / folder).rglob("*") if path.suffix != ".pyc"}
    return files


FILES = tree()


@cache
def text_of(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


@cache
def foreign_headers() -> frozenset[str]:
    sources = (text_of(name) for name in FILES if name.endswith((".c", ".h", ".py")))
    included = {include for text in sources for include in INCLUDE.findall(text)}
    return frozenset(included | {include.rsplit("/", 1)[-1] for include in included})


@cache
def found(name: str) -> tuple[str, ...]:
    """The files that a name may stand for."""
    name = name.rstrip("/").removeprefix("./").removeprefix("../")
    if "*" in name:
        return tuple(file for file in FILES if fnmatch.fnmatch(f"/{file}", f"*/{name}"))
    return tuple(file for file in FILES if file == name or file.endswith(f"/{name}"))


def exists(name: str) -> bool:
    """Programs that are built have a source of their name."""
    return bool(found(name) or found(f"{name}.c")) or name in foreign_headers()


@cache
def headings(page: str) -> tuple[str, ...]:
    return tuple(HEADING.findall(re.sub(r"^```.*?^```", "", text_of(page), flags=re.M | re.S)))


def anchors(page: str) -> set[str]:
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings(page)}


def has_test(file: str, name: str) -> bool:
    form = rf"(?:^|\s)(?:def|class) {name}\b" if file.endswith(".py") else rf"\b{name}\("
    return re.search(form, text_of(file), re.M) is not None


def has_case(file: str, name: str) -> bool:
    return f'"{name}' in text_of(file)


def missing_sections(text: str) -> list[str]:
    errors = []
    for match in SECTIONS.finditer(text):
        pages = found(match[1])
        for number in match[2].split(", ") if pages else ():
            if not any(heading.startswith((f"{number} ", f"{number}. ")) for heading in headings(pages[0])):
                errors.append(f"{match[1]} has no section {number}")
    return errors


def check_page(page: str) -> list[str]:
    text = ELSEWHERE.sub("", text_of(page))
    errors = []

    for match in LINK.finditer(text):
        target, _, anchor = match[1].partition("#")
        if "://" in target or target.startswith("mailto:"):
            continue
        path = ((ROOT / page).parent / target).resolve() if target else ROOT / page
        if not path.exists():
            errors.append(f"no such file: {match[1]}")
        elif anchor and path.suffix == ".md" and anchor not in anchors(path.relative_to(ROOT).as_posix()):
            errors.append(f"no such heading: {match[1]}")

    words = [code for code in CODE.findall(text) if FILE.fullmatch(code)] + OURS.findall(text)
    errors += [f"no such file: {word}" for word in dict.fromkeys(words) if not exists(word.rstrip(".,"))]
    errors += missing_sections(text)

    for match in TESTED.finditer(text):
        for name in CODE.findall(match[2]):
            files = [file for file in found(match[1]) if file.startswith("tests/")]
            if files and not any(has_test(file, name) for file in files):
                errors.append(f"no such test: {match[1]}, {name}")

    if page in TABLES:
        errors += check_table(text)
    return errors


def check_table(text: str) -> list[str]:
    """Semicolons part the groups of a last column: perhaps a file, then its tests, or cases in quotation marks."""
    tests = [file for file in FILES if file.startswith("tests/") and file.endswith((".c", ".py"))]
    errors = []
    above, names_tests = "", False
    for row in text.splitlines():
        if row.startswith("| ---"):
            names_tests = re.search(r"\| test[^|]*\|$", above) is not None
        above = row
        if not names_tests or not row.startswith("|") or row.startswith("| ---"):
            continue
        for group in row.rstrip(" |").rsplit("|", 1)[-1].split(";"):
            codes = CODE.findall(group)
            files = [file for code in codes if FILE.fullmatch(code) for file in found(code) if file in tests] or tests
            for name in (code for code in codes if re.fullmatch(r"[a-z]\w+", code)):
                if not any(has_test(file, name) for file in files):
                    errors.append(f"no such test: {name}, in{group}")
            for case in CASE.findall(group):
                if not any(has_case(file, case) for file in files):
                    errors.append(f'no such case: "{case}", in{group}')
    return errors


def comments(name: str) -> list[str]:
    text = text_of(name)
    if name.endswith((".c", ".h")):
        return [match[1] for match in COMMENT.finditer(text) if match[1]]
    if not name.endswith((".py", ".pyi")):
        return re.findall(r"(?:^|\s)#([^\n]*)", text)
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    said = [token.string for token in tokens if token.type == tokenize.COMMENT]
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    return said + [ast.get_docstring(node) or "" for node in ast.walk(ast.parse(text)) if isinstance(node, kinds)]


def check_comments(name: str) -> list[str]:
    errors = []
    for comment in comments(name):
        errors += [f"no such file: {word}" for word in FILE.findall(comment) if not exists(word)]
        errors += missing_sections(comment)
    return errors


def check_locks() -> list[str]:
    c = {file: LOCK for file in FILES if file.startswith(("src/", "python/_core/")) and file.endswith((".c", ".h"))}
    python = {file: PYTHON_LOCK for file in FILES if file.startswith("python/shardyfusion/") and file.endswith(".py")}
    named = text_of("docs/threads.md")
    return [
        f"docs/threads.md: the lock of {file} is missing"
        for file, lock in sorted((c | python).items())
        if lock.search(text_of(file)) and f"`{file.removeprefix('src/').removeprefix('python/shardyfusion/')}`" not in named
    ]


def functions(header: str) -> Iterator[tuple[str, str, str]]:
    """Name, declaration with what stands on its lines, and the comment above it or the group that it is in."""
    comment = ""
    for block in re.split(r"\n(?=\n|/\*|SF_API)", text_of(header)):
        if block.startswith("/*") and "-----" not in block:
            comment, _, block = block.partition("*/")
            if block.strip():
                comment = ""  # it is of a type
        elif block.startswith("SF_API"):
            declaration = re.split(r"\n(?!\s)", block)[0]
            name = re.search(r"\b(sf_\w+)\(", declaration)
            assert name is not None, declaration
            yield name[1], declaration, comment
        elif not block.startswith("/*"):
            comment = ""


def check_headers() -> list[str]:
    errors = []
    for header in sorted(file for file in FILES if fnmatch.fnmatch(file, "include/shardyfusion/*.h")):
        found = list(functions(header))
        head = text_of(header).partition("*/")[0]
        if header != "include/shardyfusion/arrow.h":  # which is Arrow's own
            errors += check_units(header)
        if found and "thread" not in head:
            errors.append(f"{header}: the comment on top tells no thread rule")
        for name, declaration, comment in found:
            told = comment + "".join(re.findall(r"/\*.*?\*/", declaration, re.S))
            if not told and not name.endswith("_init"):
                errors.append(f"{header}: {name}() has no comment")
            gives = re.search(r"\((?!sf_call )\w+ \*\*out\b", declaration)
            if gives and not re.search(r"\bsf_\w+_(free|release|close|give_back)\(", told):
                errors.append(f"{header}: {name}() does not tell how *out is released")
    return errors


def check_units(header: str) -> list[str]:
    """A size or a count beside a pointer is of what that points to; `size` in front of a struct is the struct's."""
    text = text_of(header)
    code = re.sub(r"/\*.*?\*/|//[^\n]*", lambda comment: re.sub(r"[^\n]", " ", comment[0]), text, flags=re.S)
    groups = {name: comment for name, _, comment in functions(header)}
    errors = []
    for match in NUMBERS.finditer(code):
        begin = max(code.rfind(mark, 0, match.start()) for mark in ";{}") + 1
        end = code.find(";", match.start())
        comment = re.search(r"\A;[^\n/]*(/\*.*?\*/|)", text[end:], re.S)
        statement = text[begin:end].partition("\n")[2] + (comment[1] if comment else "")
        function = re.search(r"\b(sf_\w+)\(", code[begin:end])
        told = " ".join([*COMMENT.findall(statement), groups.get(function[1], "") if function else ""])
        arguments = code[begin:end].split(",")
        at = code[begin : match.start()].count(",")
        before = arguments[at - 1] if at else code[max(0, code.rfind(";", 0, begin - 1)) : begin]
        beside = "*" in before or at + 1 < len(arguments) and "*" in arguments[at + 1]
        for name in (match[1], *re.findall(r"\w+", match[2])):
            for ends, unit in UNITS:
                first = name == "size" and code[:begin].endswith("{")
                if ends.search(name) and not unit.search(told) and not first and not (beside and "timeout" not in ends.pattern):
                    line = code[: match.start()].count("\n") + 1
                    errors.append(f"{header}:{line}: {name}: neither the name nor a comment tells its unit")
    return errors


def check_contents() -> list[str]:
    pages = {file for file in FILES if file.startswith("docs/") and file.endswith(".md")}
    listed = {
        (Path(page).parent / f"{line}.md").as_posix()
        for page in pages
        for contents in TOCTREE.findall(text_of(page))
        for line in contents.split("\n")
        if line and not line.startswith(":")
    }
    return [f"{page}: no toctree has it" for page in sorted(pages - listed - {"docs/index.md"})]


def main() -> int:
    errors = check_locks() + check_contents() + check_headers()
    pages = [file for file in FILES if file.endswith(".md")]
    for page in sorted(pages):
        errors += [f"{page}: {error}" for error in check_page(page)]
    sources = (".c", ".h", ".py", ".pyi", ".sh", "meson.build", "Makefile")
    for file in sorted(file for file in FILES if file.endswith(sources)):
        errors += [f"{file}: {error}" for error in check_comments(file)]
    print("\n".join(errors) if errors else f"docs: {len(pages)} pages, every name exists")
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main())
