"""A member of staff, and one row of everything."""

from __future__ import annotations

from datetime import timedelta
from types import SimpleNamespace

import pytest
from django.utils import timezone

from recognition.models import (
    AuditEntry,
    Detection,
    GalleryImage,
    Invitation,
    Job,
    JobLine,
    LineResult,
    Match,
    RecallSample,
    State,
    Worker,
)
from recognition.services import queries, quotas, tokens
from tests import factories


@pytest.fixture
def staff(db, client):
    """A browser signed in as a superuser."""
    root = factories.user("root", is_staff=True, is_superuser=True)
    client.force_login(root)
    client.user = root
    return client


@pytest.fixture
def rows(catalogue) -> SimpleNamespace:
    """One of each, as after some use."""
    image = factories.add(catalogue, "green tea", 1)
    failed = factories.add(catalogue, "green tea", 2)
    GalleryImage.objects.filter(pk=failed.pk).update(state=State.FAILED, error="it is torn")
    query = queries.submit(catalogue, factories.picture(3), by=catalogue.owner)
    query.answered_with = {"metric": "IP", "feature_model": {"name": "stub_rec"}}
    query.timings = {"detect": 12.5}
    factories.ended(query, State.DONE)
    query.save()
    detection = Detection.objects.create(
        query=query, position=0, x1=4, y1=4, x2=40, y2=30, det_score=0.9, status="match"
    )
    Match.objects.create(
        detection=detection,
        rank=0,
        product=image.product,
        image=image,
        label="green tea",
        score=0.91,
    )
    job = Job.objects.create(catalogue=catalogue, kind=Job.Kind.IMPORT, total=3, done=1, failed=1)
    JobLine.objects.create(job=job, number=1, text="a.jpg tea", result=LineResult.OK, image=image)
    JobLine.objects.create(
        job=job, number=2, text="b.jpg tea", result=LineResult.ERROR, reason="b.jpg is missing"
    )
    space = catalogue.require_index()
    RecallSample.objects.create(
        space=space, k=10, questions=50, recall=0.98, indexed_ms=1, exact_ms=9, vectors=9, effort=64
    )
    token, _ = tokens.create(catalogue.owner, "till 4", role="viewer")
    now = timezone.now()
    worker = Worker.objects.create(
        name="host:1", device="cpu", queues="live", batch_size=16, started_at=now, seen_at=now
    )
    quota = quotas.change(catalogue, images=1000)
    invitation = Invitation.objects.create(
        catalogue=catalogue,
        email="ben@example.org",
        digest="0" * 64,
        invited_by=catalogue.owner,
        expires_at=now + timedelta(days=7),
    )
    return SimpleNamespace(
        apitoken=token,
        auditentry=AuditEntry.objects.latest("pk"),
        catalogue=catalogue,
        featuremodel=space.feature_model,
        galleryimage=image,
        invitation=invitation,
        failed=failed,
        job=job,
        membership=catalogue.memberships.get(),
        product=image.product,
        quota=quota,
        recognitionquery=query,
        user=catalogue.owner,
        vectorindex=space,
        worker=worker,
    )
