"""What may stand in `s3_connection_options`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

from shardyfusion.errors import ConfigValidationError
from shardyfusion.type_defs import S3Config

_KEYS: dict[str, tuple[type, ...]] = {
    "endpoint_url": (str,),
    "region_name": (str,),
    "region": (str,),  # as profiles and the environment call it
    "addressing_style": (str,),
    "signature_version": (str,),
    "verify_ssl": (bool, str, os.PathLike),
    "connect_timeout": (int, float),
    "read_timeout": (int, float),
    "max_attempts": (int,),
    "request_payer": (bool, str),
}
# what others call these; credentials have a place of their own
_MEANT = {
    "endpoint": "endpoint_url", "host": "endpoint_url", "url": "endpoint_url", "aws_endpoint": "endpoint_url",
    "aws_endpoint_url": "endpoint_url", "aws_region": "region_name", "default_region": "region_name",
    "verify": "verify_ssl", "ssl_verify": "verify_ssl", "ca_bundle": "verify_ssl", "use_ssl": "verify_ssl",
    "allow_http": "endpoint_url", "timeout": "read_timeout", "max_retries": "max_attempts", "retries": "max_attempts",
    "virtual_hosted_style_request": "addressing_style", "path_style": "addressing_style",
    "requester_pays": "request_payer", "requestpayer": "request_payer", "aws_request_payer": "request_payer",
}
_SECRETS = ("access_key", "secret", "session_token", "token", "credential", "profile")


def check_connection_options(given: Mapping[str, Any] | S3Config | None) -> Mapping[str, Any]:
    """What is swallowed is published to another store than meant: ConfigValidationError names it, and what may be meant."""
    if given is None:
        return {}
    if isinstance(given, S3Config):
        given = given.connection_options()
    if not isinstance(given, Mapping):
        raise ConfigValidationError(f"s3_connection_options must be a mapping or an S3Config, got {type(given).__name__}")
    for key, value in given.items():
        if key not in _KEYS:
            raise ConfigValidationError(f"s3_connection_options has no {key!r}{_hint(str(key))}")
        kinds = _KEYS[key]
        if value is not None and (not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds)):
            names = " or ".join("a path" if kind is os.PathLike else kind.__name__ for kind in kinds)
            raise ConfigValidationError(f"s3_connection_options[{key!r}] must be {names}, got {value!r}")
    regions = {given[key] for key in ("region_name", "region") if given.get(key)}
    if len(regions) > 1:
        raise ConfigValidationError("s3_connection_options has both 'region_name' and 'region', which differ")
    style, payer = given.get("addressing_style"), given.get("request_payer")
    if style is not None and style not in ("path", "virtual", "auto"):
        raise ConfigValidationError(f"addressing_style must be 'path', 'virtual' or 'auto', got {style!r}")
    if isinstance(payer, str) and payer not in ("", "requester"):
        raise ConfigValidationError(f"request_payer must be True, False or 'requester', got {payer!r}")
    for key in ("connect_timeout", "read_timeout", "max_attempts"):
        if given.get(key) is not None and not 0 <= given[key] < 1e9:
            raise ConfigValidationError(f"s3_connection_options[{key!r}] must not be negative, got {given[key]!r}")
    return given


def _hint(key: str) -> str:
    plain = key.lower().replace("-", "_")
    if any(part in plain for part in _SECRETS):
        return ": keys come from a credential_provider, or from the environment"
    known = _MEANT.get(plain) or (plain if plain in _KEYS else None)
    near = [known] if known else get_close_matches(plain, _KEYS, n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; there are {', '.join(sorted(_KEYS))}"
