"""Credentials as people keep them, from Python: which class a failure has, and what it says."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from shardyfusion import ConfigValidationError, ManifestParseError, ManifestStoreError, ShardedReader
from shardyfusion.storage import ObstoreBackend, create_s3_store


class Refusing(HTTPServer):
    """An S3 server that refuses everybody, and remembers who came signed."""

    def __init__(self) -> None:
        self.signed: list[str] = []
        super().__init__(("127.0.0.1", 0), RefusingHandler)


class RefusingHandler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:  # noqa: N802
        self.server.signed.append(self.headers.get("Authorization", "unsigned"))  # type: ignore[attr-defined]
        self.send_response(403)
        self.end_headers()

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Refusing]:
    with Refusing() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in os.environ:
        if name.startswith(("AWS_", "S3_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    (tmp_path / ".aws").mkdir()
    return tmp_path


def get(server: Refusing) -> None:
    ObstoreBackend(
        create_s3_store("bucket", connection_options={"endpoint_url": f"http://127.0.0.1:{server.server_port}"})
    ).get("s3://bucket/key")


@pytest.mark.parametrize(
    ("printed", "said"),
    [
        ("<html>log in first</html>", "it printed: <html>log in first</html>"),
        ('{"Version": 2}', 'Version is not 1; it printed: {"Version": 2}'),
        ('{"Version": 1, "AccessKeyId": "AKIA1", "SecretAccessKey": "top sec', '"SecretAccessKey": "***'),
        ('{"Version": 1, "AccessKeyId": "A", "SecretAccessKey": "B", "Expiration": "soon"}', "Expiration is not a time"),
        ("", "it printed nothing; it complained: the vault is sealed"),
    ],
)
def test_a_command_that_prints_something_else(server: Refusing, home: Path, printed: str, said: str) -> None:
    (home / "keys").write_text(f"cat <<'END'\n{printed}\nEND\necho the vault is sealed >&2\n")
    (home / ".aws" / "config").write_text(f"[default]\ncredential_process = sh {home}/keys\n")
    with pytest.raises(ManifestStoreError) as caught:
        get(server)
    assert isinstance(caught.value, PermissionError)
    assert not isinstance(caught.value, ManifestParseError)
    assert "credential_process" in str(caught.value) and said in str(caught.value)
    assert "top sec" not in str(caught.value) and "AKIA1" not in str(caught.value)
    assert server.signed == []


def test_a_reader_whose_command_fails(server: Refusing, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / ".aws" / "config").write_text(
        "[profile \"My Team\"]\ncredential_process = sh -c 'echo no vault, profile $AWS_PROFILE >&2; exit 4'\n"
    )
    monkeypatch.setenv("AWS_PROFILE", "My Team")
    with pytest.raises(PermissionError, match="ended with status 4: no vault, profile My Team"):
        ShardedReader(
            s3_prefix="s3://bucket/prefix",
            local_root=str(home / "root"),
            s3_connection_options={"endpoint_url": f"http://127.0.0.1:{server.server_port}"},
        )


@pytest.mark.parametrize(
    "text",
    [
        "\ufeff[default]\naws_access_key_id = AKIA\naws_secret_access_key = S\n",
        "[default]\r\nAWS_ACCESS_KEY_ID=AKIA\r\nAWS_SECRET_ACCESS_KEY=S\r\n",
        "[ default ]\naws_access_key_id\t=\tAKIA\t# mine\naws_secret_access_key: S\n",
    ],
)
def test_files_as_people_have_them_sign(server: Refusing, home: Path, text: str) -> None:
    (home / ".aws" / "credentials").write_bytes(text.encode())
    with pytest.raises(PermissionError) as caught:
        get(server)
    assert "unsigned" not in str(caught.value)
    assert ["Credential=AKIA/" in header for header in server.signed] == [True]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le"])
def test_files_in_another_encoding_are_named(server: Refusing, home: Path, encoding: str) -> None:
    (home / ".aws" / "credentials").write_bytes("[default]\naws_access_key_id = A\n".encode(encoding))
    with pytest.raises(ConfigValidationError, match=r"\.aws/credentials: .*save it as UTF-8"):
        get(server)
    assert server.signed == []


def test_nothing_goes_unsigned_unsaid(server: Refusing, home: Path, caplog: pytest.LogCaptureFixture) -> None:
    (home / ".aws" / "credentials").mkdir()
    with caplog.at_level(logging.WARNING), pytest.raises(PermissionError) as caught:
        get(server)
    assert (
        "no credentials were found, the request went unsigned (looked at: the environment, "
        f"{home}/.aws/credentials (a folder), {home}/.aws/config (no such file)"
    ) in str(caught.value)
    assert server.signed == ["unsigned"]
