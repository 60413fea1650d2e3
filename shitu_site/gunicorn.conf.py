"""The web server: few processes, many threads, since a request mostly waits for a worker."""

import os

bind = os.environ.get("SHITU_BIND", "127.0.0.1:8000")
workers = int(os.environ.get("SHITU_WEB_PROCESSES", "2"))
threads = int(os.environ.get("SHITU_WEB_THREADS", "16"))
worker_class = "gthread"
timeout = 120
graceful_timeout = 10
accesslog = None  # django_structlog writes one line a request, without query strings
errorlog = "-"
control_socket_disable = True
