"""Jobs: their progress and their report."""

from __future__ import annotations

import uuid

import pytest

from recognition.models import Job, JobLine
from tests import factories


@pytest.fixture
def job(catalogue) -> Job:
    image = factories.add(catalogue, "tea", 1)
    job = Job.objects.create(
        catalogue=catalogue,
        kind=Job.Kind.IMPORT,
        started_by=catalogue.owner,
        total=3,
        done=1,
        failed=1,
    )
    JobLine.objects.create(job=job, number=1, text="a.png tea", result="ok", image=image)
    JobLine.objects.create(job=job, number=2, text="b", result="error", reason="no label")
    return job


def test_progress(viewer, url, job):
    body = viewer.get(url("jobs", job.key)).json()
    assert (body["kind"], body["state"]) == ("import", "pending")
    assert (body["total"], body["done"], body["failed"]) == (3, 1, 1)
    assert body["started_by"] == "ann"
    assert viewer.get(url("jobs")).json()["results"] == [body]


def test_the_report_line_by_line(viewer, url, job):
    lines = viewer.get(url("jobs", job.key, "lines")).json()["results"]
    assert [(line["number"], line["result"]) for line in lines] == [(1, "ok"), (2, "error")]
    assert lines[0]["image_state"] == "pending"
    assert lines[1] == {
        "number": 2,
        "text": "b",
        "result": "error",
        "reason": "no label",
        "image": None,
        "image_state": None,
    }


def test_filters(viewer, url, job):
    [line] = viewer.get(url("jobs", job.key, "lines"), {"result": "error"}).json()["results"]
    assert line["number"] == 2
    assert viewer.get(url("jobs"), {"state": "done"}).json()["results"] == []
    assert len(viewer.get(url("jobs"), {"kind": "import"}).json()["results"]) == 1


def test_one_that_is_not_there(viewer, url):
    assert viewer.get(url("jobs", uuid.uuid4())).status_code == 404
    assert viewer.get(url("jobs", uuid.uuid4(), "lines")).status_code == 404
