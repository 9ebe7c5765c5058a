"""Why a key cannot be looked up. The engine asks when it has refused one; routing comes before encoding."""

from __future__ import annotations

from shardyfusion.errors import ConfigValidationError

INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1
INTEGER_BITS = {"u64be": 64, "u32be": 32}


def key_error(key: object, encoding: str | None) -> BaseException:
    """`encoding` None: the key cannot be routed."""
    return routing_error(key) if encoding is None else encoding_error(key, encoding)


def routing_error(key: object) -> BaseException:
    if isinstance(key, int):
        return ValueError(f"Integer key {int(key)} out of range [{INT64_MIN}, {INT64_MAX}]")
    return _surrogate_error(key) or ValueError(f"Unsupported key type for hashing: {type(key)!r}")


def encoding_error(key: object, encoding: str) -> BaseException:
    bits = INTEGER_BITS.get(encoding)
    if bits is None:
        if isinstance(key, str):
            return _surrogate_error(key) or ValueError(f"{encoding} key cannot be encoded")
        wanted = "str or bytes" if encoding == "utf8" else "bytes or str"
        return ConfigValidationError(f"{encoding} encoding expects {wanted} key, got {type(key)!r}")
    if isinstance(key, int):
        return ConfigValidationError(f"{encoding} encoding requires value in [0, 2^{bits}-1]")
    if isinstance(key, bytes):
        return ValueError(f"{encoding} key bytes must have length {bits // 8}")
    return ValueError(f"{encoding} key encoding requires integer lookup keys")


def _surrogate_error(key: object) -> UnicodeEncodeError | None:
    if isinstance(key, str):
        try:
            key.encode()
        except UnicodeEncodeError as error:
            return error
    return None
