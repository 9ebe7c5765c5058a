"""Throw-away certificates for the tests: an authority, another one, and what a server may show: good, expired, of another host.

Made by the openssl command, which ca-certificates brings along.
"""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Certificate:
    cert: Path
    key: Path


@dataclass(frozen=True)
class Certificates:
    authority: Path  # trusted by the tests
    other_authority: Path  # has signed none of these
    good: Certificate  # for localhost, *.localhost and 127.0.0.1
    expired: Certificate
    elsewhere: Certificate  # for other.example


def _openssl(*arguments: object) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, stdin=subprocess.DEVNULL, capture_output=True)


def _authority(folder: Path, name: str) -> Certificate:
    made = Certificate(folder / f"{name}.pem", folder / f"{name}.key")
    _openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", 30,
             "-subj", f"/CN={name}", "-keyout", made.key, "-out", made.cert)
    return made


def _server(folder: Path, name: str, authority: Certificate, hosts: str, dates: tuple[str, str]) -> Certificate:
    made = Certificate(folder / f"{name}.pem", folder / f"{name}.key")
    request, config, index = (folder / f"{name}.{end}" for end in ("csr", "cnf", "index"))
    index.write_text("")
    # `x509 -req` takes no dates in the OpenSSL versions that are in use; `ca` does
    config.write_text(
        "[ca]\ndefault_ca = d\n[d]\ndatabase = {0}\nnew_certs_dir = {1}\nrand_serial = yes\ndefault_md = sha256\n"
        "policy = p\nx509_extensions = e\nunique_subject = no\n[p]\ncommonName = supplied\n[e]\nsubjectAltName = {2}\n"
        "extendedKeyUsage = serverAuth\n".format(index, folder, hosts))
    _openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", f"/CN={name}",
             "-keyout", made.key, "-out", request)
    _openssl("ca", "-batch", "-notext", "-config", config, "-cert", authority.cert, "-keyfile", authority.key,
             "-startdate", dates[0], "-enddate", dates[1], "-in", request, "-out", made.cert)
    return made


def certificates(folder: Path) -> Certificates:
    """Makes all of them below `folder`."""
    authority, other = _authority(folder, "authority"), _authority(folder, "other-authority")
    here = "DNS:localhost, DNS:*.localhost, IP:127.0.0.1"
    valid, over = ("20200101000000Z", "21000101000000Z"), ("20200101000000Z", "20210101000000Z")
    return Certificates(
        authority.cert, other.cert,
        good=_server(folder, "good", authority, here, valid),
        expired=_server(folder, "expired", authority, here, over),
        elsewhere=_server(folder, "elsewhere", authority, "DNS:other.example", valid))
