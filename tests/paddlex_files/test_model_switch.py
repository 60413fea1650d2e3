"""Another network for a catalogue: beside the old one, compared, chosen or dropped."""

from __future__ import annotations

import numpy as np
import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from django.utils import translation

from recognition import search
from recognition.errors import Conflict, EngineFailed, ModelUnavailable, NotFound
from recognition.images import check
from recognition.models import (
    Catalogue,
    CropPolicy,
    Embedding,
    GalleryImage,
    Job,
    State,
    VectorIndex,
    View,
)
from recognition.search.store import stored
from recognition.services import (
    catalogues,
    gallery,
    index_files,
    index_jobs,
    indexing,
    jobs,
    model_switch,
    portions,
)
from recognition.services.model_switch import Question
from tests import factories
from tests.paddlex_files.conftest import unit_vectors
from tests.services.test_job_attempts import Killed, run_and_kill

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("two_models")]


@pytest.fixture
def embedded(two_models, catalogue, run_tasks):
    """The catalogue with twelve pictures of six products, embedded by the stub network."""
    with run_tasks():
        for seed in range(12):
            factories.add(catalogue, f"p{seed // 2}", seed=seed)
    return catalogue


def reembed(catalogue) -> Job:
    job = model_switch.start(catalogue, "other_rec", by=catalogue.owner)
    jobs.run(job.pk)
    job.refresh_from_db()
    return job


def vectors(space) -> np.ndarray:
    rows = Embedding.objects.filter(space=space).order_by("image__number", "view")
    return np.array([row.emb for row in rows], np.float32)


def test_every_image_gets_a_vector_beside_the_old_one(embedded):
    before = vectors(embedded.index)
    job = reembed(embedded)
    assert (job.state, job.total, job.done, job.failed) == (State.DONE, 12, 12, 0)
    space = model_switch.space_of(embedded, "other_rec")
    assert vectors(space).shape == (12, 64)
    assert np.abs(vectors(space) - before).max() > 0.1
    assert (vectors(embedded.index) == before).all()
    embedded.refresh_from_db()
    assert embedded.index_id != space.pk, "nobody chose it yet"


def test_the_space_is_like_the_one_that_answers(embedded):
    VectorIndex.objects.filter(pk=embedded.index_id).update(metric="L2", index_type="IVF", m=20)
    embedded.refresh_from_db()
    reembed(embedded)
    space = model_switch.space_of(embedded, "other_rec")
    assert (space.metric, space.index_type, space.m) == ("L2", "IVF", 20)


def test_only_what_is_missing_is_embedded(embedded, run_tasks, monkeypatch):
    reembed(embedded)
    with run_tasks():
        factories.add(embedded, "late", seed=99)
    seen = []
    real = indexing.embed_into

    def watch(space, rows, within):
        seen.extend(row.number for row in rows)
        return real(space, rows, within)

    monkeypatch.setattr(indexing, "embed_into", watch)
    assert reembed(embedded).done == 13
    assert seen == [12]


def test_large_pictures_are_embedded_a_few_at_a_time(embedded, monkeypatch):
    monkeypatch.setattr(portions, "MOST_PIXELS", 5 * 64 * 48)
    real, sizes = indexing._embed_into, []

    def note(space, pictures, within) -> None:
        sizes.append(len(pictures))
        real(space, pictures, within)

    monkeypatch.setattr(indexing, "_embed_into", note)
    job = reembed(embedded)
    assert (job.state, job.done, sizes) == (State.DONE, 12, [5, 5, 2])


def test_killed_in_the_middle_it_goes_on(embedded, monkeypatch):
    monkeypatch.setattr(model_switch, "_batch", lambda: 5)
    job = model_switch.start(embedded, "other_rec", by=None)

    def die(job: Job) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        jobs.run_here(job, die)
    space = model_switch.space_of(embedded, "other_rec")
    assert len(vectors(space)) == 5
    job.refresh_from_db()
    assert job.state == State.PENDING
    jobs.run(job.pk)
    job.refresh_from_db()
    assert (job.state, job.done, len(vectors(space))) == (State.DONE, 12, 12)


def test_killed_at_one_picture_again_and_again_it_is_given_up(embedded, monkeypatch, settings):
    monkeypatch.setattr(model_switch, "_batch", lambda: 1)
    gone = embedded.images.get(number=3)
    gone.file.storage.delete(gone.file.name)
    real = indexing.embed_into

    def die(space, rows, within):
        if rows[0].number == 7:
            raise Killed
        return real(space, rows, within)

    monkeypatch.setattr(indexing, "embed_into", die)
    job = model_switch.start(embedded, "other_rec", by=None)
    # The first run comes on, the others only fail again what failed.
    for _ in range(1 + settings.SHITU_MAX_ATTEMPTS):
        run_and_kill(job, monkeypatch)
    jobs.run(job.pk)
    job.refresh_from_db()
    assert (job.state, job.done) == (State.FAILED, 6)
    assert "the worker stopped 3 times here" in job.error


def test_a_cancelled_job_stores_nothing_more(embedded, monkeypatch):
    monkeypatch.setattr(model_switch, "_batch", lambda: 5)
    job = model_switch.start(embedded, "other_rec", by=None)
    with pytest.raises(Conflict, match="cancelled"):
        jobs.run_here(job, lambda job: jobs.cancel(job, by=None))
    assert len(vectors(model_switch.space_of(embedded, "other_rec"))) == 5


def test_asked_twice_there_is_one_job(embedded):
    first = model_switch.start(embedded, "other_rec", by=None)
    assert model_switch.start(embedded, "other_rec", by=None) == first


def test_a_picture_that_is_gone_fails_alone_with_its_reason(embedded):
    image = embedded.images.get(number=3)
    image.file.storage.delete(image.file.name)
    job = reembed(embedded)
    assert (job.state, job.done, job.failed) == (State.DONE, 11, 1)
    assert "missing or unreadable" in job.lines.get().reason
    with pytest.raises(Conflict, match="1 images have no vector of other_rec"):
        model_switch.switch(embedded, "other_rec", by=None)
    again = reembed(embedded)
    assert (again.done, again.failed) == (11, 1)


def test_a_vector_that_is_refused_fails_alone_too(embedded, monkeypatch):
    image, store = embedded.images.get(number=3), search.store

    def refuse(space, image_ids, *rest):
        if image.pk in image_ids:
            raise EngineFailed("no vector")
        return store(space, image_ids, *rest)

    monkeypatch.setattr(search, "store", refuse)
    job = reembed(embedded)
    assert (job.state, job.done, job.failed) == (State.DONE, 11, 1)
    assert job.lines.get().reason == "no vector"


def test_why_is_in_the_language_of_whoever_started_it(embedded):
    image = embedded.images.get(number=3)
    image.file.storage.delete(image.file.name)
    with translation.override("zh-hans"):
        job = model_switch.start(embedded, "other_rec", by=None)
    jobs.run(job.pk)
    assert job.lines.get().reason == "其文件缺失或无法读取；请重新添加图片"


def test_both_views_are_embedded_with_the_boxes_that_were_found(two_models, run_tasks):
    both = factories.catalogue(crop_policy=CropPolicy.BOTH, detector="stub_det")
    with run_tasks():
        for seed in range(3):
            factories.add(both, "p", seed=seed)
    GalleryImage.objects.filter(catalogue=both, number=1).update(
        box=[0, 0, 16, 12], box_source="detected"
    )
    reembed(both)
    space = model_switch.space_of(both, "other_rec")
    assert Embedding.objects.filter(space=space, view=View.MAIN_BODY).count() == 3
    body = Embedding.objects.get(space=space, view=View.MAIN_BODY, image__number=1)
    corner = check(factories.png(1)).pixels[:12, :16]
    from tests.paddlex_files.conftest import OtherEmbedder

    assert np.allclose(body.emb, OtherEmbedder().embed([corner])[0], atol=1e-3)


def test_switching_changes_the_very_next_answer(embedded):
    reembed(embedded)
    version = embedded.version
    before = model_switch.switch(embedded, "other_rec", by=embedded.owner)
    embedded.refresh_from_db()
    assert embedded.index.feature_model.name == "other_rec"
    assert before.feature_model.name == "stub_rec"
    assert embedded.version > version
    found = search.nearest([embedded.index], vectors(embedded.index)[[4]], limit=1)
    assert found.neighbours[0][0].label == "p2"


def test_switching_back_is_the_same(embedded):
    reembed(embedded)
    model_switch.switch(embedded, "other_rec", by=None)
    model_switch.switch(embedded, "stub_rec", by=None)
    embedded.refresh_from_db()
    assert embedded.index.feature_model.name == "stub_rec"


def test_scores_stay_in_the_metric_that_was_chosen_meanwhile(embedded):
    catalogues.change(embedded, rec_threshold=0.7)
    reembed(embedded)
    catalogues.change(embedded, metric="L2")
    model_switch.switch(embedded, "other_rec", by=None)
    switched = Catalogue.objects.get(pk=embedded.pk)
    assert switched.require_index().metric == "L2"
    assert switched.rec_threshold == pytest.approx(0.6)


def test_it_does_not_switch_while_something_is_missing(embedded, run_tasks):
    reembed(embedded)
    with run_tasks():
        factories.add(embedded, "late", seed=99)
    with pytest.raises(Conflict, match="1 images have no vector"):
        model_switch.switch(embedded, "other_rec", by=None)


def test_an_image_embedded_while_the_switch_happened_is_embedded_again(
    embedded, run_tasks, monkeypatch
):
    reembed(embedded)
    late = factories.add(embedded, "late", seed=99)
    real = indexing._finish

    def switch_first(catalogue, crops, made):
        monkeypatch.setattr(indexing, "_finish", real)
        model_switch.switch(embedded, "other_rec", by=None)
        return real(catalogue, crops, made)

    monkeypatch.setattr(indexing, "_finish", switch_first)
    indexing.embed_waiting(embedded.pk)
    late.refresh_from_db()
    assert (late.state, late.attempts) == (State.PENDING, 0)
    indexing.embed_waiting(embedded.pk)
    late.refresh_from_db()
    assert late.state == State.DONE
    embedded.refresh_from_db()
    assert Embedding.objects.filter(space=embedded.index, image=late).exists()


def test_images_without_pictures_cannot_change_the_network(embedded, index_directory, read_here):
    index_files.import_directory(
        embedded,
        index_directory(unit_vectors(2), ["a", "b"]),
        feature_model="stub_rec",
        by=None,
    )
    assert reembed(embedded).done == 12
    with pytest.raises(Conflict, match=r"2 images came as vectors without pictures \(12, 13"):
        model_switch.switch(embedded, "other_rec", by=None)
    gallery.remove_numbers(embedded, [12, 13])
    model_switch.switch(embedded, "other_rec", by=None)


def test_dropping_removes_the_other_vectors_only(embedded):
    reembed(embedded)
    assert model_switch.drop(embedded, "other_rec", by=None) == 12
    assert embedded.spaces.count() == 1
    assert len(vectors(embedded.index)) == 12


def test_what_answers_cannot_be_dropped_nor_embedded_again(embedded):
    with pytest.raises(Conflict, match="answers with stub_rec"):
        model_switch.drop(embedded, "stub_rec", by=None)
    with pytest.raises(Conflict, match="uses stub_rec already"):
        model_switch.start(embedded, "stub_rec", by=None)
    with pytest.raises(NotFound, match="never embedded with other_rec"):
        model_switch.switch(embedded, "other_rec", by=None)


def test_a_network_that_is_not_installed_is_refused(embedded, settings, tmp_path):
    settings.SHITU_MODELS_DIR = tmp_path
    with pytest.raises(ModelUnavailable):
        model_switch.start(embedded, "nobody_rec", by=None)


def test_both_networks_are_compared_on_the_same_questions(embedded):
    reembed(embedded)
    asked = [Question(f"p{seed // 2}", check(factories.png(seed)).pixels) for seed in range(12)]
    current, other = model_switch.compare(embedded, asked)
    assert (current.current, other.current) == (True, False)
    assert current.report.recall_at_1 == 1.0 > other.report.recall_at_1
    # Nothing but the other picture of each product is left; two random pictures share nothing.
    held = model_switch.compare(embedded, asked[::2], without=range(0, 12, 2))
    assert all(one.images == 6 and one.report.queries == 6 for one in held)
    assert held[0].report.recall_at_1 < 1.0


def test_comparing_before_everything_is_embedded_is_refused(embedded):
    model_switch.start(embedded, "other_rec", by=None)
    with pytest.raises(Conflict, match="12 images have no vector"):
        model_switch.compare(embedded, [Question("p0", check(factories.png(0)).pixels)])


def test_the_commands(embedded, tmp_path, capsys):
    reembed(embedded)
    (tmp_path / "queries.txt").write_text("".join(f"{n}.png p{n // 2}\n" for n in range(4)))
    for seed in range(4):
        (tmp_path / f"{seed}.png").write_bytes(factories.png(seed))
    of = {"catalogue": embedded.name, "user": embedded.owner.username}
    call_command("compare_models", **of, queries=str(tmp_path / "queries.txt"), root=str(tmp_path))
    told = capsys.readouterr().out
    assert "4 pictures, 8 images in the gallery, 4 left out" in told
    assert "stub_rec" in told and "other_rec" in told
    call_command("reembed", **of, feature_model="other_rec", switch=True, drop=True)
    assert "removed 12 vectors of stub_rec" in capsys.readouterr().out
    assert list(embedded.spaces.values_list("feature_model__name", flat=True)) == ["other_rec"]
    with pytest.raises(CommandError, match="answers with other_rec"):
        call_command("reembed", **of, feature_model="other_rec", drop=True)


# --- What happens meanwhile -----------------------------------------------------------------------


def test_its_figures_agree_whoever_adds_between_two_looks(embedded):
    job = model_switch.start(embedded, "other_rec", by=None)
    added: list[GalleryImage] = []

    def add_behind_the_first_count(execute, sql, params, many, context):
        found = execute(sql, params, many, context)
        if not added and "COUNT(" in sql and "recognition_galleryimage" in sql:
            added.append(factories.add(embedded, "late", seed=99))
            indexing.embed_waiting(embedded.pk)
        return found

    with connection.execute_wrapper(add_behind_the_first_count):
        jobs.run(job.pk)
    job.refresh_from_db()
    assert added
    assert (job.state, job.total, job.done, job.failed) == (State.DONE, 13, 13, 0)


def test_an_image_that_is_removed_meanwhile_is_no_failure(embedded, monkeypatch):
    real = indexing.embed_into

    def remove_one(space, rows, within):
        gone = [row for row in rows if row.number == 3]
        for row in gone:
            row.file.storage.delete(row.file.name)
        failed = real(space, rows, within)
        gallery.remove_images(embedded, gone)
        return failed

    monkeypatch.setattr(indexing, "embed_into", remove_one)
    job = reembed(embedded)
    assert (job.state, job.total, job.done, job.failed) == (State.DONE, 11, 11, 0)
    assert not job.lines.exists()


def test_what_failed_counts_even_when_it_is_removed_in_the_end(embedded):
    image = embedded.images.get(number=3)
    image.file.storage.delete(image.file.name)
    job = model_switch.start(embedded, "other_rec", by=None)
    job = jobs.run_here(job, lambda _: gallery.remove_images(embedded, [image]) and None)
    assert (job.state, job.total, job.done, job.failed) == (State.DONE, 12, 11, 1)
    assert job.lines.get().result == "error"


def test_a_switch_of_this_moment_is_known(embedded):
    seen_before = Catalogue.objects.select_related("index__feature_model").get(pk=embedded.pk)
    reembed(embedded)
    model_switch.switch(embedded, "other_rec", by=None)
    with pytest.raises(Conflict, match="uses other_rec already"):
        model_switch.start(seen_before, "other_rec", by=None)


def test_a_switch_of_this_moment_has_the_index_that_is_meant(embedded):
    reembed(embedded)
    seen_before = Catalogue.objects.select_related("index__feature_model").get(pk=embedded.pk)
    model_switch.switch(embedded, "other_rec", by=None)
    assert index_jobs.change(seen_before, m=32) == embedded.index
    assert index_jobs.start_rebuild(seen_before, by=None).options == {"space": embedded.index_id}


def test_another_box_is_embedded_by_the_other_network_too_before_that_answers(embedded):
    reembed(embedded)
    space, image = model_switch.space_of(embedded, "other_rec"), embedded.images.get(number=3)
    before = stored(space, image.pk)
    gallery.set_box(image, [2, 2, 20, 20])
    indexing.embed_waiting(embedded.pk)
    with pytest.raises(Conflict, match="1 images have no vector of other_rec"):
        model_switch.switch(embedded, "other_rec", by=None)
    reembed(embedded)
    model_switch.switch(embedded, "other_rec", by=None)
    assert np.abs(stored(space, image.pk) - before).max() > 0.1


def test_a_box_drawn_while_the_other_network_is_at_work_is_not_missed(embedded, monkeypatch):
    image, real = embedded.images.get(number=3), indexing._crops

    def draw_meanwhile(*args, **how):
        monkeypatch.setattr(indexing, "_crops", real)
        crops = real(*args, **how)
        gallery.set_box(image, [2, 2, 20, 20])
        indexing.embed_waiting(embedded.pk)
        return crops

    monkeypatch.setattr(indexing, "_crops", draw_meanwhile)
    job = reembed(embedded)
    assert (job.state, job.total, job.done, job.failed) == (State.DONE, 12, 11, 0)
    with pytest.raises(Conflict, match="1 images have no vector of other_rec"):
        model_switch.switch(embedded, "other_rec", by=None)
    assert reembed(embedded).done == 12
    model_switch.switch(embedded, "other_rec", by=None)


def recrop(catalogue, policy: str) -> None:
    """Choose another crop policy, and have every image embedded by it."""
    catalogues.change(Catalogue.objects.get(pk=catalogue.pk), crop_policy=policy)
    while indexing.embed_waiting(catalogue.pk):
        pass


def views(space) -> list[int]:
    return sorted(Embedding.objects.filter(space=space).values_list("view", flat=True))


def test_another_crop_policy_meanwhile_ends_the_job_before_it_stores_other_views(
    embedded, monkeypatch
):
    monkeypatch.setattr(model_switch, "_batch", lambda: 5)
    real, batches = indexing.embed_into, []

    def recrop_before_the_second(space, rows, within):
        batches.append(rows)
        if len(batches) == 2:
            recrop(embedded, CropPolicy.MAIN_BODY)
        return real(space, rows, within)

    with monkeypatch.context() as patch:
        patch.setattr(indexing, "embed_into", recrop_before_the_second)
        job = reembed(embedded)
    assert (job.state, job.failed) == (State.FAILED, 0)
    assert "the crop policy of the catalogue was changed meanwhile" in job.error
    space = model_switch.space_of(embedded, "other_rec")
    assert views(space) == []
    assert reembed(embedded).state == State.DONE
    assert views(space) == 12 * [View.MAIN_BODY]


def test_a_view_that_the_crop_policy_leaves_out_goes_when_the_right_one_comes(embedded):
    reembed(embedded)
    space = model_switch.space_of(embedded, "other_rec")
    Catalogue.objects.filter(pk=embedded.pk).update(crop_policy=CropPolicy.MAIN_BODY)
    reembed(embedded)
    assert views(space) == 12 * [View.MAIN_BODY]


def test_the_old_box_answers_after_a_switch_too_until_the_new_one_is_embedded(
    embedded, monkeypatch
):
    reembed(embedded)
    gallery.set_box(embedded.images.get(number=3), [2, 2, 20, 20])
    real = indexing._finish

    def switch_first(*args):
        monkeypatch.setattr(indexing, "_finish", real)
        model_switch.switch(embedded, "other_rec", by=None)
        return real(*args)

    monkeypatch.setattr(indexing, "_finish", switch_first)
    for _ in range(2):
        indexing.embed_waiting(embedded.pk)
        assert len(vectors(embedded.index)) == 12
    with pytest.raises(Conflict, match="1 images have no vector of stub_rec"):
        model_switch.switch(embedded, "stub_rec", by=None)
