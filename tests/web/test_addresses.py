"""Whose address a request has: what a client writes into its header is not believed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROXY, CLIENT, LIE = "10.0.0.1", "203.0.113.9", "6.6.6.6"
CODE = """
import json, sys, django
django.setup()
from axes.helpers import get_client_ip_address
from django.test import RequestFactory
from ipware import get_client_ip
found = []
for header in json.loads(sys.argv[1]):
    given = {"HTTP_X_FORWARDED_FOR": header} if header else {}
    request = RequestFactory().get("/", REMOTE_ADDR="10.0.0.1", **given)
    assert get_client_ip(request)[0] == get_client_ip_address(request)  # the log's and the lock's
    found.append(get_client_ip_address(request))
print(json.dumps(found))
"""


@pytest.mark.parametrize(
    ("proxies", "headers"),
    [
        (0, {"": PROXY, CLIENT: PROXY, f"{LIE}, {CLIENT}": PROXY}),
        (1, {"": PROXY, CLIENT: CLIENT, f"{LIE}, {CLIENT}": PROXY, f"nonsense, {CLIENT}": PROXY}),
        (2, {f"{CLIENT}, 10.0.0.2": CLIENT, f"{LIE}, {CLIENT}, 10.0.0.2": None}),
    ],
)
def test_as_many_proxies_are_believed_as_there_are(proxies, headers):
    ran = subprocess.run(
        [sys.executable, "-c", CODE, json.dumps(list(headers))],
        env={
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "shitu_site.settings",
            "DATABASE_URL": "postgres://nobody@127.0.0.1:9/none",
            "REDIS_URL": "redis://127.0.0.1:9/0",
            "SHITU_SECRET_KEY": "only-for-this-test",
            "SHITU_PROXIES": str(proxies),
        },
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(ran.stdout) == list(headers.values())
