"""What processes are put through: forked before and after use, ended from a child, started without standard streams or with
hardly any descriptors."""

from __future__ import annotations

import itertools
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from fixtures import case
from ports import free_port
from test_cli import SHARDY
from under_gunicorn import gunicorn

CASE = case("slatedb-multi-l0")

PREAMBLE = f"""
import asyncio, atexit, multiprocessing, os, sys, threading
from shardyfusion import AsyncShardedReader, ConcurrentShardedReader, HashShardedWriteConfig, PythonRecordInput, ShardedReader
from shardyfusion.writer.python import write_hash_sharded
PREFIX = {str(CASE.folder)!r}
def open_reader():
    return ShardedReader(s3_prefix=PREFIX, local_root="x", relocate=True)
async def read_async():
    async with AsyncShardedReader.open(s3_prefix=PREFIX, local_root="x", relocate=True) as reader:
        return await reader.get(1)
def read():
    with open_reader() as reader:
        return reader.get(1)
def write(where):
    write_hash_sharded(range(100), HashShardedWriteConfig(num_dbs=2, s3_prefix='file://' + where),
                       PythonRecordInput(lambda i: i, lambda i: b"v"))
def child_ends(body=lambda: None):
    pid = os.fork()
    if pid == 0:
        body()
        sys.exit(0)
    return os.waitpid(pid, 0)[1]
"""


def run(code: str, folder: Path, prefix: list[str] | None = None) -> subprocess.CompletedProcess[str]:
    # from 3.12 on, Python warns of every fork with threads
    return subprocess.run(
        [*(prefix or []), sys.executable, "-W", "ignore::DeprecationWarning", "-c", PREAMBLE + code], capture_output=True,
        text=True, timeout=120, cwd=folder)


@pytest.mark.parametrize(
    "code",
    [
        "read()\nassert child_ends() == 0",
        "reader = open_reader(); reader.get(1)\nassert child_ends() == 0\nreader.close()",
        "reader = open_reader(); reader.get(1)\nassert child_ends(reader.close) == 0",
        "asyncio.run(read_async())\nassert child_ends() == 0",
        "write(os.path.abspath('out'))\nassert child_ends() == 0",
        "write(os.path.abspath('out'))\nassert child_ends(lambda: (read(), write(os.path.abspath('again')))) == 0",
        # a child of a child, and a parent that goes on
        "read()\nassert child_ends(lambda: (read(), os._exit(child_ends(read)))) == 0\nread()",
        # forked while other threads read
        "reader = ConcurrentShardedReader(s3_prefix=PREFIX, local_root='x', relocate=True)\n"
        "stop = threading.Event()\n"
        "def go():\n    while not stop.is_set():\n        reader.get(1)\n"
        "threads = [threading.Thread(target=go) for _ in range(3)]\n"
        "[t.start() for t in threads]\n"
        "statuses = [child_ends(read) for _ in range(5)]\n"
        "stop.set(); [t.join() for t in threads]; reader.close()\nassert statuses == [0] * 5, statuses",
        # multiprocessing by fork: its children end by os._exit, but run the handlers of their own
        "read()\nmp = multiprocessing.get_context('fork')\n"
        "with mp.Pool(2) as pool:\n    pool.apply(read)\n"
        "p = mp.Process(target=read); p.start(); p.join(); assert p.exitcode == 0",
        # the interpreter's end: handlers of its own, and daemons that are still reading
        "reader = open_reader(); reader.get(1)\natexit.register(reader.close); atexit.register(read)",
        "def go():\n    while True:\n        read()\n"
        "[threading.Thread(target=go, daemon=True).start() for _ in range(3)]\nread()",
    ],
    ids=["closed", "open", "closed in the child", "asyncio", "written", "child writes", "grandchild", "while reading",
         "multiprocessing", "atexit", "daemons"],
)
def test_forks_and_ends(code: str, tmp_path: Path) -> None:
    """Libraries' destructors run in the child, too, which has none of the parent's threads."""
    done = run(code, tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


WITHOUT_STREAMS = """
import stat
closed = [int(c) for c in sys.argv[1]]
for fd in closed:
    os.close(fd)
try:
    read(); asyncio.run(read_async()); write(os.path.abspath('out'))
    for name in os.listdir('/proc/self/fd'):
        if int(name) in closed and os.path.exists(f'/proc/self/fd/{name}'):
            # asyncio's own selector and pipes may be gone by now; SQLite's module puts /dev/null there
            assert os.readlink(f'/proc/self/fd/{name}') in ('/dev/null', f'/proc/{os.getpid()}/fd'), name
except BaseException as error:
    with open('failure', 'w') as f:
        f.write(repr(error))
    os._exit(1)
os._exit(0)
"""


@pytest.mark.parametrize("closed", ["".join(c) for n in range(1, 4) for c in itertools.combinations("012", n)])
def test_without_standard_streams(closed: str, tmp_path: Path) -> None:
    code = WITHOUT_STREAMS.replace("sys.argv[1]", repr(closed))
    done = run(code, tmp_path)
    failure = tmp_path / "failure"
    assert done.returncode == 0, (failure.read_text() if failure.exists() else done.stderr)


def test_started_without_standard_streams(tmp_path: Path) -> None:
    """As daemons are: closed before Python starts."""
    done = run("read(); asyncio.run(read_async()); write(os.path.abspath('out')); open('done', 'w').close()", tmp_path,
               ["sh", "-c", 'exec "$0" "$@" <&- >&- 2>&-'])
    assert done.returncode == 0 and (tmp_path / "done").exists()


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&-", "<&- 2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_shardy_without_standard_streams(closed: str, tmp_path: Path) -> None:
    done = subprocess.run(
        ["sh", "-c", f'exec "$0" "$@" {closed}', str(SHARDY), "--relocate", "--current-url", f"{CASE.folder}/_CURRENT", "info"],
        capture_output=True, text=True, timeout=60, cwd=tmp_path)
    printed = ">&-" not in closed.replace("2>&-", "")
    assert done.returncode == (0 if printed else 1), done
    assert ("run_id" in done.stdout) == printed
    assert ("Standard output" in done.stderr) == (not printed and "2>&-" not in closed)


def test_hardly_any_descriptors(tmp_path: Path) -> None:
    """It is said which limit to raise, and what failed is worth a retry once it is raised."""
    code = """
import resource
from shardyfusion import ShardyfusionError
held = []
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
try:
    while True:
        held.append(os.open('/dev/null', os.O_RDONLY))
except OSError:
    pass
for _ in range(2):
    try:
        read()
    except ShardyfusionError as error:
        assert isinstance(error, OSError) and error.retryable and 'ulimit -n' in str(error), repr(error)
    else:
        raise AssertionError('it needs none')
for fd in held:
    os.close(fd)
read()
"""
    done = run(code, tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


APP = PREAMBLE + """
read()  # the master has read before it forks
def app(environ, start_response):
    body = repr(read()).encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
"""


def test_gunicorn_preloads(tmp_path: Path) -> None:
    """Workers that were forked from a master that has read answer, and end without a signal."""
    (tmp_path / "served.py").write_text(APP)
    port = free_port()
    log = tmp_path / "log"
    arguments = ["--preload", "--workers", "2", "--max-requests", "3", "--bind", f"127.0.0.1:{port}", "--log-level", "debug"]
    with gunicorn(*arguments, "served:app", cwd=tmp_path, log=log) as server:
        answers = []
        give_up = time.monotonic() + 90
        while len(answers) < 12 and time.monotonic() < give_up and server.poll() is None:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=30) as response:
                    answers.append(response.read())
            except OSError:
                time.sleep(0.1)  # it is starting, or a worker has just left
    text = log.read_text()
    assert len(answers) == 12 and len(set(answers)) == 1, text
    assert text.count("Worker exiting") >= 4, text
    for word in ("SIGSEGV", "SIGABRT", "exited with code"):  # SIGTERM is of one that was told to go while it booted
        assert word not in text, text
