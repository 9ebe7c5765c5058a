"""Writers of snapshots: `python` for one process, `aio` for asyncio."""
