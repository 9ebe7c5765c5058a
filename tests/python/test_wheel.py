"""The wheel installs into an empty environment, and reads and writes there."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from fixtures import FIXTURES, case

sys.path.insert(0, str(FIXTURES.parent / "support"))

from certificates import certificates  # noqa: E402
from fault_server import fault_server  # noqa: E402
from s3_server import ACCESS_KEY, REGION, SECRET_KEY, s3_server  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
# Others that are there may be named, parted by spaces: a wheel is made for each of them, too. So it is for those of LOOKED_FOR that are on the path.
NAMED = [sys.executable, *os.environ.get("WHEEL_PYTHONS", "").split()]
MINE = "python%d.%d" % sys.version_info[:2] + sys.abiflags
LOOKED_FOR = [p for p in ("python3.13t", "python3.14", "python3.14t") if p not in (*NAMED, MINE)]
CAN_BUILD = """
import ensurepip, pathlib, sysconfig, venv
assert (pathlib.Path(sysconfig.get_path("include")) / "Python.h").exists()
"""
READING = """
import asyncio, sys, tempfile
from shardyfusion import AsyncShardedReader

async def main(prefix):
    with tempfile.TemporaryDirectory() as local_root:
        async with await AsyncShardedReader.open(s3_prefix=prefix, local_root=local_root) as reader:
            print(reader.snapshot_info().num_dbs)

asyncio.run(main(*sys.argv[1:]))
"""
TAG = """
import sys, sysconfig
version = "%d%d" % sys.version_info[:2]
print(f"cp{version}-cp{version}{sys.abiflags}", bool(sysconfig.get_config_var("Py_GIL_DISABLED")))
"""
PROGRAM = """
import asyncio, sys, tempfile
import shardyfusion
from shardyfusion import AsyncShardedReader, HashShardedWriteConfig, PythonRecordInput
from shardyfusion.writer.python import write_hash_sharded

async def main(prefix, mine):
    with tempfile.TemporaryDirectory() as local_root:
        async with await AsyncShardedReader.open(s3_prefix=prefix, local_root=local_root) as reader:
            print(shardyfusion.__file__)
            print(reader.snapshot_info().row_count)
        rows = PythonRecordInput(key_fn=int, value_fn=lambda n: b"%d" % n)
        write_hash_sharded(range(1000), HashShardedWriteConfig(num_dbs=4, s3_prefix=mine), rows)
        async with await AsyncShardedReader.open(s3_prefix=mine, local_root=local_root) as reader:
            print(sum([await reader.get(n) == b"%d" % n for n in range(1000)]))

asyncio.run(main(*sys.argv[1:]))
"""


def run(*command: str | Path, more: Mapping[str, str] = {}, **kwargs: Any) -> str:
    env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH" and not k.startswith("AWS_")} | dict(more)
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, timeout=600, env=env, **kwargs)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_the_sdist_is_small_and_complete(tmp_path: Path) -> None:
    run(sys.executable, "-m", "build", "--sdist", "--no-isolation", "--outdir", tmp_path, ROOT)
    (sdist,) = tmp_path.glob("shardyfusion-*.tar.gz")
    assert sdist.stat().st_size < 2_000_000
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    (folder,) = (p for p in tmp_path.iterdir() if p.is_dir())
    metadata = (folder / "PKG-INFO").read_text()
    assert "License-Expression: Apache-2.0" in metadata and "Keywords:" in metadata
    # everything that the build asks for is in it; the build itself is that of the wheel
    options = ("-Dpython=true", "-Dtests=false", "-Dexamples=false")
    run(sys.executable, "-m", "mesonbuild.mesonmain", "setup", *options, tmp_path / "build", folder)
    sources = json.loads(run(sys.executable, "-m", "mesonbuild.mesonmain", "introspect", "--targets", tmp_path / "build"))
    files = {s for target in sources for group in target["target_sources"] for s in group.get("sources", ())}
    assert len(files) > 100 and all(Path(f).exists() for f in files)


@pytest.mark.parametrize("interpreter", NAMED + LOOKED_FOR)
def test_wheel_works_in_an_empty_environment(tmp_path: Path, interpreter: str) -> None:
    if interpreter in LOOKED_FOR and not shutil.which(interpreter):
        pytest.skip(f"{interpreter} is not on the path")
    if interpreter in LOOKED_FOR and subprocess.run([interpreter, "-c", CAN_BUILD], capture_output=True).returncode:
        pytest.skip(f"{interpreter} does not start, or lacks its headers, venv or ensurepip")
    run(ROOT / "tools" / "build_wheel.sh", "--python", interpreter, tmp_path / "dist")
    (wheel,) = (tmp_path / "dist").glob("shardyfusion-*-manylinux_2_28_*.whl")
    assert wheel.stat().st_size < 8_000_000
    tag, is_free_threaded = run(interpreter, "-c", TAG).split()
    assert f"-{tag}-manylinux" in wheel.name
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        programs = {n: archive.read(n) for n in names if n.endswith("/shardy")}
    assert len(programs) == 2 and all(p[16] == 3 for p in programs.values())  # ET_DYN: position-independent, as the distribution's
    assert not [n for n in names if ".libs/" in n]  # nothing beside the extension and the command: what they need is inside of them
    licences = {Path(n).name for n in names if ".dist-info/licenses/" in n}
    assert licences >= {"LICENSE", "curl", "openssl", "zstd", "lz4", "snappy", "sqlite3", "pcre2", "libuv1", "libedit", "ncurses", "tomlplusplus"}
    run(interpreter, "-m", "venv", tmp_path / "empty")
    python = tmp_path / "empty" / "bin" / "python"
    # what the newest release of a requirement has no wheel for, an older one has: nothing is compiled here
    run(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--only-binary=:all:", wheel)
    if is_free_threaded == "True":
        imports = "import sys, shardyfusion._native, shardyfusion._manifest_models; print(sys._is_gil_enabled())"  # the second imports pydantic
        assert run(python, "-W", "error", "-c", imports, cwd=tmp_path) == "False\n"
    mine = (tmp_path / "mine").as_uri()
    out = run(python, "-c", PROGRAM, ROOT / "examples" / "snapshot", mine, cwd=tmp_path).split()
    assert out[0].startswith(str(tmp_path / "empty")), out
    assert int(out[1]) > 0
    assert out[2] == "1000"
    # the command comes along, and starts without Python wherever pip puts it
    shardy = tmp_path / "empty" / "bin" / "shardy"
    pip = (python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps")
    run(*pip, "--target", tmp_path / "target", wheel)
    run(*pip, "--ignore-installed", "--prefix", tmp_path / "prefix", wheel)
    (tmp_path / "link").symlink_to(shardy)
    for place in (shardy, tmp_path / "target" / "bin" / "shardy", tmp_path / "prefix" / "bin" / "shardy", tmp_path / "link"):
        assert place.read_bytes().startswith(b"\x7fELF")
        assert run(place, "--version").startswith("shardy, version ")
    info = run(shardy, "--current-url", mine, "info", cwd=tmp_path)
    assert json.loads(info)["row_count"] == 1000
    assert run(python, "-m", "shardyfusion", "--current-url", mine, "info", cwd=tmp_path) == info
    # TLS and the private authority of a company, by the OpenSSL inside
    made = certificates(tmp_path)
    snapshot = case("slatedb-multi-l0")
    with s3_server(FIXTURES) as server, fault_server(server.endpoint, made) as front:
        env = {
            "AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY, "AWS_REGION": REGION,
            "AWS_ENDPOINT_URL": front.tls_endpoints["good"]}  # fmt: skip
        command = (shardy, "--current-url", snapshot.expected["s3_prefix"] + "/_CURRENT", "info")
        told = json.loads(run(*command, cwd=tmp_path, more={**env, "SSL_CERT_FILE": str(made.authority)}))
        assert told["num_dbs"] == 2
        reading = (python, "-c", READING, snapshot.expected["s3_prefix"])
        assert run(*reading, cwd=tmp_path, more={**env, "SSL_CERT_FILE": str(made.authority)}) == "2\n"
        with pytest.raises(AssertionError, match="certificate"):
            run(*command, cwd=tmp_path, more={**env, "SSL_CERT_FILE": str(made.other_authority)})
