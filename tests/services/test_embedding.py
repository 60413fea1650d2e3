"""Images become vectors, whatever happens while they do."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from recognition.errors import ModelUnavailable, TryAgain
from recognition.models import (
    Catalogue,
    CropPolicy,
    Embedding,
    GalleryImage,
    RecognitionQuery,
    State,
    View,
)
from recognition.models.work import WorkQuerySet
from recognition.services import answering, files, gallery_embedding, indexing, portions, queries
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


def test_a_crop_policy_chosen_while_the_network_works_is_followed(
    catalogue, monkeypatch, run_tasks
):
    image = factories.add(catalogue, "tea")
    real = indexing._finish

    def behind_a_change(of, crops, vectors) -> None:
        monkeypatch.setattr(indexing, "_finish", real)
        Catalogue.objects.filter(pk=catalogue.pk).update(crop_policy=CropPolicy.BOTH)
        real(of, crops, vectors)

    monkeypatch.setattr(indexing, "_finish", behind_a_change)
    with run_tasks():
        indexing.embed_waiting(catalogue.pk)
    views = Embedding.objects.filter(image=image).values_list("view", flat=True)
    assert set(views) == {View.WHOLE, View.MAIN_BODY}


def test_however_long_the_storage_is_away_no_image_fails(catalogue, monkeypatch, settings):
    for seed in range(3):
        factories.add(catalogue, "tea", seed)

    def away(name: str) -> bytes:
        raise TryAgain("the storage does not answer")

    with monkeypatch.context() as outage:
        outage.setattr(files, "read", away)
        for _ in range(settings.SHITU_MAX_ATTEMPTS + 1):
            with pytest.raises(TryAgain):
                indexing.embed_waiting(catalogue.pk)
            assert not catalogue.images.waiting().exists(), "it would be tried without a pause"
            catalogue.images.update(lease_until=timezone.now() - timedelta(seconds=1))
    indexing.embed_waiting(catalogue.pk)
    assert set(catalogue.images.values_list("state", flat=True)) == {State.DONE}


def test_large_pictures_are_decoded_a_few_at_a_time(catalogue, monkeypatch):
    """Of 64 x 48 pixels each, and two of them are as much as there is memory for."""
    monkeypatch.setattr(portions, "MOST_PIXELS", 2 * 64 * 48)
    embed, answer, sizes = indexing._embed, answering._answer, []

    def note_pictures(of, pictures) -> None:
        sizes.append(len(pictures))
        embed(of, pictures)

    def note_questions(asked) -> None:
        sizes.append(len(asked))
        answer(asked)

    monkeypatch.setattr(indexing, "_embed", note_pictures)
    monkeypatch.setattr(answering, "_answer", note_questions)
    for seed in range(5):
        factories.add(catalogue, "tea", seed)
    indexing.embed_waiting(catalogue.pk)
    for seed in range(3):
        queries.submit(catalogue, factories.picture(seed), by=None)
    answering.answer_waiting()
    assert sizes == [2, 2, 1, 2, 1]
    for rows in (GalleryImage.objects, RecognitionQuery.objects):
        assert set(rows.values_list("state", flat=True)) == {State.DONE}


def test_a_batch_of_common_pictures_stays_together_and_a_huge_one_is_alone():
    common, huge = GalleryImage(width=1920, height=1080), GalleryImage(width=10_000, height=10_000)
    assert list(portions.portions([common] * 16)) == [[common] * 16]
    assert list(portions.portions([common, huge, common])) == [[common], [huge], [common]]
    assert list(portions.portions([])) == []
