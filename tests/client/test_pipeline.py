"""The client against the running site with the starter models, held against PaddleX's library."""

from __future__ import annotations

import asyncio
import sys

import numpy as np
import pytest
from PIL import Image

from recognition.client import ServerError, asynchronous, create_async_pipeline, create_pipeline
from recognition.errors import EngineFailed
from recognition.models import Catalogue, GalleryImage, State
from recognition.services import indexing
from tests import factories, processes
from tests.paddlex.cases import GALLERY

SCORE, PIXELS = 5e-4, 0.05


def same(ours, theirs) -> None:
    """Labels equal, scores and corners nearly; PaddleX's result as recorded."""
    assert len(ours["boxes"]) == len(theirs["boxes"])
    for one, other in zip(ours["boxes"], theirs["boxes"], strict=True):
        assert one["labels"] == other["labels"]
        if one["labels"] != [None]:
            np.testing.assert_allclose(one["rec_scores"], other["rec_scores"], atol=SCORE)
        np.testing.assert_allclose(one["coordinate"], other["coordinate"], atol=PIXELS)
        assert abs(one["det_score"] - other["det_score"]) <= SCORE


def test_a_script_of_paddlex_changes_one_line(
    serve, settings, token, library, gallery_file, pictures, tmp_path, capsys, monkeypatch
):
    for name, value in processes.environment(settings).items():
        monkeypatch.setenv(name, value)
    site = serve()
    pipeline = create_pipeline(str(site.base_url), token=token, progress=True)

    index = pipeline.build_index(
        gallery_imgs=str(pictures), gallery_label=str(gallery_file), index_type="Flat"
    )
    assert f"{len(GALLERY)}/{len(GALLERY)}" in capsys.readouterr().err  # the bar
    assert index.id_map == {int(number): label for number, label in library["id_map"].items()}

    asked = [str(pictures / name) for name in ("scene.jpg", "single.jpg")]
    results = list(pipeline.predict(asked, index=index))
    assert [result["input_path"] for result in results] == asked
    for result, theirs in zip(results, library["results"], strict=True):
        same(result, theirs["res"])
        result.save_to_json(tmp_path / "output")
        result.save_to_img(tmp_path / "output")
    assert sorted(path.name for path in (tmp_path / "output").iterdir()) == [
        "scene.json", "scene_res.jpg", "single.json", "single_res.jpg",
    ]  # fmt: skip

    # The same picture in other clothes.
    with Image.open(asked[1]) as opened:
        opened.load()
    pixels = np.asarray(opened.convert("RGB"))[:, :, ::-1]
    for other in (opened, pixels):
        [result] = pipeline.predict(other, index=index.key)
        same(result, library["results"][1]["res"])

    # Thresholds and top-k.
    [wide] = pipeline.predict(asked[1], index=index, rec_threshold=-1.0, rec_topk=7)
    assert max(len(box["labels"]) for box in wide["boxes"]) == 7
    [none] = pipeline.predict(asked[1], index=index, rec_threshold=1.0)
    assert all(box["labels"] == [None] for box in none["boxes"])

    # A saved index is PaddleX's, and can be asked by its directory.
    index.save(str(tmp_path / "drink_index"))
    assert sorted(path.name for path in (tmp_path / "drink_index").iterdir()) == [
        "id_map.yaml", "vector.index",
    ]  # fmt: skip
    saved = list(pipeline.predict(asked, index=str(tmp_path / "drink_index")))
    for result, theirs in zip(saved, library["results"], strict=True):
        same(result, theirs["res"])
    before = Catalogue.objects.count()
    list(pipeline.predict(asked[1], index=str(tmp_path / "drink_index")))
    assert Catalogue.objects.count() == before  # uploaded once

    # More pictures, and fewer.
    index = pipeline.append_index(
        gallery_imgs=[opened, pixels[:100, :100]], gallery_label=["new", "new"], index=index
    )
    (tmp_path / "remove_ids.txt").write_text("0\n8\n4711\n")
    index = pipeline.remove_index(remove_ids=str(tmp_path / "remove_ids.txt"), index=index)
    assert sorted(index.id_map) == [1, 2, 3, 4, 5, 6, 7]
    pipeline.close()
    assert "django" in sys.modules  # of the test; test_imports.py shows that the client needs none

    async def asynchronous() -> list:
        async with create_async_pipeline(str(site.base_url), token=token) as one:
            return [result async for result in one.predict(asked, index.key)]

    assert len(asyncio.run(asynchronous())) == 2


def test_a_gallery_goes_up_whole_or_not_at_all(serve, someone, token, pictures):
    url = str(serve(SHITU_PADDLEX_ANONYMOUS_USER=someone.username).base_url)
    good = str(pictures / "milk-1.jpg")
    with (
        create_pipeline(url) as nobody,
        pytest.raises(ServerError, match="create_token"),
    ):
        nobody.build_index([good], ["a"])
    assert not Catalogue.objects.exists()
    pipeline = create_pipeline(url, token=token)
    with pytest.raises(ServerError, match=r"imageLabelPairs\[1\].image"):
        pipeline.build_index([good, str(pictures / "notes.txt")], ["a", "b"], name="drinks")
    assert not Catalogue.objects.exists()
    index = pipeline.build_index([good], ["a"], name="drinks")
    assert Catalogue.objects.get().name == "drinks"

    many = [*[str(pictures / name) for name, _ in GALLERY] * 5, str(pictures / "notes.txt")]
    labels = [str(number) for number in range(len(many))]
    with pytest.raises(ServerError, match="no picture|cannot|picture"):
        pipeline.append_index(many, labels, index)
    assert index.id_map == {0: "a"}  # the first request of the two had gone through
    pipeline.close()


@pytest.fixture
def three(local, live_server, token, tmp_path):
    """A pipeline, an index of pictures 0 and 1, and the paths of pictures 0, 1 and 2."""
    paths = [tmp_path / f"{seed}.png" for seed in range(3)]
    for seed, path in enumerate(paths):
        path.write_bytes(factories.png(seed))
    names = [str(path) for path in paths]
    with create_pipeline(live_server.url, token=token) as pipeline:
        yield pipeline, pipeline.build_index(names[:2], ["tea"] * 2), names


def test_appending_in_vain_leaves_what_was_there_before(three, tmp_path, monkeypatch):
    pipeline, index, names = three
    (tmp_path / "bad.png").write_bytes(b"no picture")
    monkeypatch.setattr(asynchronous, "_CHUNK_PICTURES", 3)
    with pytest.raises(ServerError, match=r"imageLabelPairs\[0\].image"):
        pipeline.append_index([*names, str(tmp_path / "bad.png")], ["tea"] * 4, index)
    assert index.id_map == {0: "tea", 1: "tea"}


def test_appending_does_not_care_about_other_pictures(three, monkeypatch):
    async def sleep(seconds: float) -> None:
        raise AssertionError("it waits for others")

    monkeypatch.setattr(asynchronous.asyncio, "sleep", sleep)
    pipeline, index, names = three
    GalleryImage.objects.filter(number=0).update(state=State.FAILED, error="it was damaged")
    GalleryImage.objects.filter(number=1).update(state=State.RUNNING)
    pipeline.append_index(names[2:], ["cola"], index)
    assert index.id_map == {0: "tea", 1: "tea", 2: "cola"}


def test_appending_what_cannot_be_embedded_is_taken_back(three, monkeypatch):
    class Broken:
        def embed(self, *args, **options) -> None:
            raise EngineFailed("the network is on fire")

    pipeline, index, names = three
    GalleryImage.objects.filter(number=0).update(state=State.FAILED, error="it was damaged")
    with monkeypatch.context() as broken:
        broken.setattr(indexing, "get_runtime", Broken)
        with pytest.raises(ServerError, match="2 pictures could not .*id 0: .*on fire.*id 2"):
            pipeline.append_index([names[0], names[2]], ["tea", "tea"], index)
    assert index.id_map == {0: "tea", 1: "tea"}
    pipeline.append_index([names[0], names[2]], ["tea", "tea"], index)  # the old one, too
    assert set(GalleryImage.objects.values_list("state", flat=True)) == {State.DONE}
