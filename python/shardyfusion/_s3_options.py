"""From what callers give (connection options, credentials, dotenv file) to what the engine takes.

What is left out here, the engine looks for itself: in the environment, then in the shared config files.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from shardyfusion._dotenv import read_env_file
from shardyfusion.errors import ConfigValidationError

if TYPE_CHECKING:
    from shardyfusion._native import S3Options
    from shardyfusion.credentials import CredentialProvider, S3Credentials


def engine_options(
    connection_options: Mapping[str, Any] | None = None,
    credentials: S3Credentials | None = None,
    env_file: str | None = None,
) -> S3Options | None:
    """The file wins over credentials and options. None: nothing was given."""
    options = _from_connection_options(connection_options or {})
    if credentials is not None:
        options["access_key_id"] = credentials.access_key_id
        options["secret_access_key"] = credentials.secret_access_key
        options["session_token"] = credentials.session_token
    if env_file is not None:
        _apply_env(options, read_env_file(env_file))
    return options or None


def resolve(provider: CredentialProvider | None) -> S3Credentials | None:
    """The provider's credentials, asked for once."""
    return None if provider is None else provider.resolve()


def _from_connection_options(given: Mapping[str, Any]) -> S3Options:
    options: S3Options = {}
    if given.get("endpoint_url"):
        options["endpoint_url"] = given["endpoint_url"]
    if given.get("region_name"):
        options["region"] = given["region_name"]
    style = given.get("addressing_style")
    if style is not None:
        if style not in ("path", "virtual", "auto"):
            raise ConfigValidationError(f"addressing_style must be 'path', 'virtual' or 'auto', got {style!r}")
        options["addressing"] = style
    verify = given.get("verify_ssl")
    if isinstance(verify, str):
        options["ca_bundle"] = verify
    elif verify is not None and not verify:
        options["insecure"] = True
    for name, option in (("connect_timeout", "connect_timeout_ms"), ("read_timeout", "read_timeout_ms")):
        if given.get(name) is not None:
            options[option] = max(1, round(given[name] * 1000))  # type: ignore[literal-required]
    if given.get("max_attempts") is not None:
        options["max_retries"] = max(0, int(given["max_attempts"]) - 1)
    return options


def _apply_env(options: S3Options, env: Mapping[str, str]) -> None:
    names = {
        "AWS_ACCESS_KEY_ID": "access_key_id",
        "AWS_SECRET_ACCESS_KEY": "secret_access_key",
        "AWS_SESSION_TOKEN": "session_token",
        "AWS_ENDPOINT_URL": "endpoint_url",
        "AWS_REGION": "region",
    }
    if "AWS_ACCESS_KEY_ID" in env:
        options["session_token"] = None  # a token belongs to its key pair
    for variable, option in names.items():
        if env.get(variable):
            options[option] = env[variable]  # type: ignore[literal-required]
    style = env.get("AWS_VIRTUAL_HOSTED_STYLE_REQUEST")
    if style is not None:
        options["addressing"] = "virtual" if style.lower() in ("1", "true", "yes") else "path"
