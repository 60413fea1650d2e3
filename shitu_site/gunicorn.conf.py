"""The web server: few processes, many threads, since a request mostly waits for a worker."""

from pathlib import Path

import environ

env = environ.Env()
env.read_env(Path(__file__).resolve().parent.parent / ".env")  # read before Django's settings are

bind = env.str("SHITU_BIND", default="127.0.0.1:8000")
workers = env.int("SHITU_WEB_PROCESSES", default=2)
threads = env.int("SHITU_WEB_THREADS", default=16)
worker_class = "gthread"
timeout = 120
graceful_timeout = 10
accesslog = None  # django_structlog writes one line a request, without query strings
errorlog = "-"
control_socket_disable = True
