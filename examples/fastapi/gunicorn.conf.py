"""gunicorn -c gunicorn.conf.py app:app"""

import os
from typing import Any

bind = os.environ.get("BIND", "0.0.0.0:8000")
workers = int(os.environ.get("WEB_CONCURRENCY", "2"))
worker_class = "uvicorn_worker.UvicornWorker"
preload_app = False  # each worker opens a reader of its own, behind the fork
timeout = 120  # a worker that opens says nothing meanwhile
graceful_timeout = 30

_first = int(os.environ.get("METRICS_FIRST_PORT", "9101"))


def pre_fork(server: Any, worker: Any) -> None:
    """Each worker gets the lowest metrics port that none of the others has: targets stay the same when workers are replaced."""
    taken = {getattr(other, "metrics_port", 0) for other in server.WORKERS.values()}
    worker.metrics_port = next(port for port in range(_first, _first + len(taken) + 1) if port not in taken)


def post_fork(server: Any, worker: Any) -> None:
    os.environ["METRICS_PORT"] = str(worker.metrics_port)
