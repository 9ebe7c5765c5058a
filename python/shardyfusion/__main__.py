"""`python -m shardyfusion` is the `shardy` command."""

from shardyfusion.cli.app import main

main()
