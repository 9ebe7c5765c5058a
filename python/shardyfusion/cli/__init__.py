"""The `shardy` command. It is a program in C that comes with the package; this starts it, as the command of that name does."""

from shardyfusion.cli.app import main

__all__ = ["main"]
