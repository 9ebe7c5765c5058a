"""Hostile values for every option of every command of `shardy`: refused by a message that a terminal can show, never a crash."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from test_cli import HOME, SHARDY, folder_of

VALUES: dict[str, bytes] = {
    "empty": b"",
    "huge": b"9" * 40,
    "beyond 64 bits": b"18446744073709551616",
    "negative": b"-1",
    "not a number": b"nan",
    "infinite": b"1e999",
    "hexadecimal": b"0x10",
    "followed by more": b"1 x",
    "unknown": b"no-such-thing",
    "control bytes": b"\x1b[31m\x07\r\n\x7f",
    "invalid UTF-8": b"\xff\xfe\xc3(",
    "surrogate": b"\xed\xa0\x80",
    "a conversion": b"%s%n%99999d{db_id:999999999d}",
    "long": b"x" * 100_000,
}
TEXTS = ("empty", "control bytes", "invalid UTF-8", "surrogate", "a conversion", "long")  # for options that take any text
TYPED = re.compile(rb"is not (a whole number|a number of|one of|[A-Z]+=)|has no unit|Unknown duration unit|must be >= ")
# numbers and texts that are what such an option takes
SOUND = {"huge": b"a number of seconds", "beyond 64 bits": b"a number of seconds"}


class Program:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        copied = shutil.copytree(folder_of("history-three-runs"), folder / "snapshot")
        self.pointer = str(copied / "_CURRENT")

    def __call__(self, *line: bytes | str) -> tuple[int, bytes]:
        env = {**HOME, "LC_ALL": "C", "LANG": "C", "SHARDY_CURRENT": self.pointer, "TMPDIR": str(self.folder)}
        if line[0] == "watch":  # for ever, where there is something to see
            del env["SHARDY_CURRENT"]
        done = subprocess.run(
            [str(SHARDY), *line], stdin=subprocess.DEVNULL, capture_output=True, timeout=60, cwd=self.folder, env=env, check=False
        )
        return done.returncode, done.stderr

    def help(self, *command: str) -> str:
        done = subprocess.run([str(SHARDY), *command, "--help"], capture_output=True, text=True, env=HOME, timeout=60, check=True)
        return done.stdout

    def commands(self) -> list[str]:
        listed = self.help().partition("Commands:\n")[2].partition("\n\n")[0]
        return re.findall(r"^  (\w+) ", listed, re.MULTILINE)

    def options(self, *command: str) -> list[str]:
        """Those that take a value."""
        listed = self.help(*command).partition("Options:\n")[2].partition("\n\n")[0]
        return re.findall(r"^ {2,6}(?:-\w, )?(--[\w-]+) [A-Z]", listed, re.MULTILINE)

    def words(self, command: str) -> list[str]:
        """As many as the command must have."""
        usage = self.help(command).splitlines()[0].partition("[OPTIONS]")[2]
        return ["1" for word in usage.split() if not word.startswith("[")]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    yield Program(tmp_path_factory.mktemp("hostile"))


def lines(program: Program) -> Iterator[tuple[str, str, list[str]]]:
    """Options of all commands once, those of some with each of these."""
    for option in program.options():
        yield "info", option, []
    for command in program.commands():
        for option in program.options(command):
            yield command, option, program.words(command)


def attack(program: Program, command: str, option: str, words: list[str]) -> list[str]:
    wrong = []
    refusal = program(command, f"{option}=no-such-thing", *words)[1]
    typed = TYPED.search(refusal) is not None
    for name in VALUES if typed else TEXTS:
        code, said = program(command, os.fsencode(option) + b"=" + VALUES[name], *words)
        what = f"shardy {command} {option}: {name}: exit {code}, {said[:300]!r}"
        sound = SOUND.get(name, b"\0") in refusal
        if code not in (0, 1, 2) or (code != 0 and not said.strip()):
            wrong.append(what)
        elif typed and not sound and code != 2:
            wrong.append(what)
        elif re.search(rb"[\x00-\x09\x0b-\x1f\x7f]", said) or not said.isascii() and _undecodable(said):
            wrong.append(what)
    return wrong


def _undecodable(said: bytes) -> bool:
    try:
        said.decode()
    except UnicodeDecodeError:
        return True
    return False


def test_every_option_of_every_command(program: Program) -> None:
    attacked = list(lines(program))
    assert len({command for command, _, _ in attacked}) >= 10 and len(attacked) > 60
    with ThreadPoolExecutor(4) as pool:
        wrong = [what for found in pool.map(lambda line: attack(program, *line), attacked) for what in found]
    assert not wrong, "\n".join(wrong)


def test_words_of_every_command(program: Program) -> None:
    wrong = []
    for command in program.commands():
        words = program.words(command) or ["x"]
        for name in TEXTS:
            code, said = program(command, *(VALUES[name] for _ in words))
            if code not in (0, 1, 2) or (code != 0 and not said.strip()) or _undecodable(said):
                wrong.append(f"shardy {command}: {name}: exit {code}, {said[:300]!r}")
    assert not wrong, "\n".join(wrong)
