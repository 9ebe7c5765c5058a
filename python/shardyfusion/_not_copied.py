"""What belongs to the engine of its process: a copy would close it for the original, and in another process it is not there."""

from __future__ import annotations

from typing import NoReturn


class NotCopied:
    """Its objects refuse to be copied or pickled."""

    __slots__ = ()

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"{type(self).__qualname__} objects cannot be copied or pickled: open one in each process")
