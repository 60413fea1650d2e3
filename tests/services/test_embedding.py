"""Images become vectors, whatever happens while they do."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from recognition.errors import ModelUnavailable
from recognition.models import Catalogue, CropPolicy, Embedding, GalleryImage, State, View
from recognition.models.work import WorkQuerySet
from recognition.services import gallery_embedding, indexing
from tests import factories

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("stub_engine")]


def test_who_is_too_slow_fails_nothing_that_another_worker_has_embedded(catalogue, monkeypatch):
    image = factories.add(catalogue, "tea")
    real = indexing._embed

    def too_slow(of, pictures) -> None:
        monkeypatch.setattr(indexing, "_embed", real)
        GalleryImage.objects.update(lease_until=timezone.now() - timedelta(seconds=1))
        indexing.embed_waiting(of.pk)  # the other worker
        raise ModelUnavailable("the network went away")

    monkeypatch.setattr(indexing, "_embed", too_slow)
    with pytest.raises(ModelUnavailable):
        indexing.embed_waiting(catalogue.pk)
    image.refresh_from_db()
    assert (image.state, image.error) == (State.DONE, "")


def test_a_crop_policy_of_this_moment_is_followed(catalogue, monkeypatch):
    image = factories.add(catalogue, "tea")
    real = WorkQuerySet.claim

    def behind_a_change(rows, limit):
        monkeypatch.setattr(WorkQuerySet, "claim", real)
        Catalogue.objects.filter(pk=catalogue.pk).update(crop_policy=CropPolicy.BOTH)
        gallery_embedding.reembed(catalogue)
        return real(rows, limit)

    monkeypatch.setattr(WorkQuerySet, "claim", behind_a_change)
    indexing.embed_waiting(catalogue.pk)
    image.refresh_from_db()
    assert image.state == State.DONE
    views = Embedding.objects.filter(image=image).values_list("view", flat=True)
    assert set(views) == {View.WHOLE, View.MAIN_BODY}
