"""A real S3 server (versitygw) on loopback over a fresh folder, for the tests and the benchmarks.

As a command it runs another one with the server in its environment:
    python tests/support/s3_server.py --fixtures tests/fixtures -- COMMAND [ARG ...]
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from certificates import Certificates, certificates  # noqa: E402
from ports import free_port  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
SERVER = ROOT / ".cache" / "bin" / "versitygw"
ACCESS_KEY, SECRET_KEY, REGION = "test-access", "test-secret-key", "us-east-1"


@dataclass(frozen=True)
class S3Server:
    endpoint: str
    folder: Path  # one sub-folder a bucket
    tls_endpoint: str = ""  # over the same buckets; empty without
    certificates: Certificates | None = None

    @property
    def environment(self) -> dict[str, str]:
        out = {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_REGION": REGION,
            "AWS_ALLOW_HTTP": "true",
            "SF_TEST_S3_ENDPOINT": self.endpoint,
            "SF_TEST_S3_ACCESS_KEY": ACCESS_KEY,
            "SF_TEST_S3_SECRET_KEY": SECRET_KEY,
            "SF_TEST_S3_REGION": REGION,
            "SF_TEST_S3_BUCKET": "scratch",
        }
        if self.certificates:
            out |= {
                "SF_TEST_S3_TLS_ENDPOINT": self.tls_endpoint,
                "SF_TEST_CA": str(self.certificates.authority),
                "SF_TEST_OTHER_CA": str(self.certificates.other_authority),
            }
        return out


def lay_out_fixtures(fixtures: Path, folder: Path) -> None:
    """Bucket `bucket` holds every snapshot; each SlateDB case is a bucket of its own (`_` becomes `-`)."""
    for case in sorted((fixtures / "snapshots").iterdir()):
        if (case / "bucket").is_dir():
            shutil.copytree(case / "bucket", folder / "bucket", dirs_exist_ok=True)
    for case in sorted((fixtures / "slatedb").iterdir()):
        if case.is_dir():
            shutil.copytree(case, folder / case.name.replace("_", "-"))


@contextlib.contextmanager
def gateway(folder: Path, log: Path, *options: object) -> Iterator[int]:
    """One server process over the buckets in `folder`; yields its port."""
    port = free_port()
    with log.open("wb") as out:
        process = subprocess.Popen(
            [SERVER, "--port", f"127.0.0.1:{port}", "--access", ACCESS_KEY, "--secret", SECRET_KEY, "--region", REGION,
             "--keep-alive", "--virtual-domain", "localhost", "--quiet", *options, "posix", folder],
            stdin=subprocess.DEVNULL, stdout=out, stderr=out)
    try:
        for _ in range(200):
            if process.poll() is not None:
                raise RuntimeError(f"the S3 server ended: {log.read_text()}")
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            time.sleep(0.05)
        else:
            raise RuntimeError("the S3 server does not answer")
        yield port
    finally:
        process.terminate()
        process.wait(10)


@contextlib.contextmanager
def s3_server(fixtures: Path | None = None, *, tls: bool = False) -> Iterator[S3Server]:
    """Path style, and virtual-hosted with `localhost` as the host: http://BUCKET.localhost:PORT/KEY."""
    if not SERVER.exists():
        raise RuntimeError(f"{SERVER} is missing: run tools/install.sh test")
    with tempfile.TemporaryDirectory(prefix="shardyfusion-s3-") as tmp, contextlib.ExitStack() as stack:
        folder = Path(tmp) / "buckets"
        (folder / "scratch").mkdir(parents=True)
        if fixtures is not None:
            lay_out_fixtures(fixtures, folder)
        server = S3Server(f"http://127.0.0.1:{stack.enter_context(gateway(folder, Path(tmp) / 'server.log'))}", folder)
        if tls:
            made = certificates(Path(tmp))
            port = stack.enter_context(
                gateway(folder, Path(tmp) / "tls.log", "--cert", made.good.cert, "--key", made.good.key))
            server = dataclasses.replace(server, tls_endpoint=f"https://127.0.0.1:{port}", certificates=made)
        yield server


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fixtures", type=Path)
    parser.add_argument("--tls", action="store_true", help="a second endpoint with TLS")
    parser.add_argument("command", nargs="+")
    options = parser.parse_args()
    with s3_server(options.fixtures, tls=options.tls) as server:
        return subprocess.run(options.command, env={**os.environ, **server.environment}, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
