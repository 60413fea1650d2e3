from __future__ import annotations

import io
import json
import tarfile
import time

import pytest

from recognition.engine import child
from recognition.engine.exported import unpack
from recognition.engine.installed import MANIFEST
from recognition.engine.store import ModelStore
from recognition.errors import BadInput, Conflict, ModelUnavailable, SetupError, TooLarge


def archive(path, members):
    """A tar with these (name, bytes or TarInfo) entries."""
    with tarfile.open(path, "w") as tar:
        for name, content in members:
            if isinstance(content, tarfile.TarInfo):
                tar.addfile(content)
                continue
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def official(path, directory):
    files = [
        (f"PP-ShiTuV2_rec_infer/{file.name}", file.read_bytes()) for file in directory.iterdir()
    ]
    return archive(path, files)


def test_a_missing_model_is_an_error_at_once_that_names_three_ways_out(store):
    started = time.perf_counter()
    with pytest.raises(ModelUnavailable) as error:
        store.get("PP-ShiTuV2_rec")
    assert time.perf_counter() - started < 10  # no network is asked
    for way in ("fetch PP-ShiTuV2_rec`", "--from FILE.tar", "add PP-ShiTuV2_rec --role embedder"):
        assert way in error.value.message


def test_a_missing_starter_model_is_to_be_built(store):
    with pytest.raises(ModelUnavailable, match="build-starter"):
        store.get("starter_rec")


def test_an_archive_carried_by_hand_is_installed(store, exported, tmp_path):
    model = store.install_tar("PP-ShiTuV2_rec", official(tmp_path / "a.tar", exported()))
    assert store.get("PP-ShiTuV2_rec") == model == store.installed()[0]
    assert (model.role, model.dimension, model.paddlex_name) == ("embedder", 512, "PP-ShiTuV2_rec")
    assert len(model.digest) == 64
    assert model.preprocessing["PreProcess"]["transform_ops"][0] == {
        "ResizeImage": {"size": [224, 224]}
    }
    assert model.origin["archive_sha256"]
    model.verify()


def test_an_archive_of_another_model_is_refused(store, exported, tmp_path):
    tar = official(
        tmp_path / "a.tar", exported(Global={"model_name": "PP-ShiTuV2_rec_CLIP_vit_base"})
    )
    with pytest.raises(BadInput, match="are the model PP-ShiTuV2_rec_CLIP_vit_base"):
        store.install_tar("PP-ShiTuV2_rec", tar)
    assert store.installed() == []


def link(kind, target):
    info = tarfile.TarInfo("inference.json")
    info.type, info.linkname = kind, target
    return info


@pytest.mark.parametrize(
    ("members", "says"),
    [
        ([("../inference.yml", b"")], "leads out"),
        ([("/etc/inference.yml", b"")], "leads out"),
        ([("x", link(tarfile.SYMTYPE, "/etc/passwd"))], "no ordinary file"),
        ([("x", link(tarfile.LNKTYPE, "inference.yml"))], "no ordinary file"),
        ([("x", link(tarfile.CHRTYPE, ""))], "no ordinary file"),
        ([("a/inference.yml", b"1"), ("b/inference.yml", b"2")], "inference.yml twice"),
    ],
)
def test_an_unsafe_archive_is_refused_as_a_whole(tmp_path, members, says):
    stage = tmp_path / "stage"
    stage.mkdir()
    with pytest.raises(BadInput, match=says):
        unpack(archive(tmp_path / "a.tar", members), stage)
    assert not (tmp_path / "inference.yml").exists()


def test_an_archive_that_is_too_much_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("recognition.engine.exported.MAX_MODEL_BYTES", 100)
    with pytest.raises(TooLarge):
        unpack(archive(tmp_path / "a.tar", [("x", b"0" * 101)]), tmp_path)


def test_half_an_archive_is_refused(store, exported, tmp_path):
    tar = official(tmp_path / "a.tar", exported(weights=b"0" * 100_000))
    tar.write_bytes(tar.read_bytes()[:50_000])
    with pytest.raises(BadInput, match="not a complete tar"):
        store.install_tar("PP-ShiTuV2_rec", tar)
    tar.write_bytes(b"no archive at all")
    with pytest.raises(BadInput, match="not a complete tar"):
        store.install_tar("PP-ShiTuV2_rec", tar)
    assert store.names() == []
    assert not list(store.root.glob(".staging-*"))


def test_a_directory_of_ones_own_is_copied(store, exported):
    directory = exported(Global={"model_name": "PP-ShiTuV2_rec"})
    model = store.add_directory("bottles", "embedder", directory)
    (directory / "inference.pdiparams").write_bytes(b"trained on")
    store.get("bottles").verify()
    assert model.directory == store.root / "bottles"


def test_the_identity_is_that_of_the_content(store, exported, tmp_path):
    first = store.add_directory("one", "embedder", exported("a"))
    elsewhere = ModelStore(tmp_path / "other machine")
    assert elsewhere.add_directory("two", "embedder", exported("b")).digest == first.digest
    changed = store.add_directory("three", "embedder", exported("c", weights=b"other"))
    assert changed.digest != first.digest


def test_a_converted_network_does_not_change_the_identity(store, exported):
    plain = store.add_directory("plain", "embedder", exported("a"))
    converted = exported("b")
    (converted / "inference.onnx").write_bytes(b"made by some version of a converter")
    assert store.add_directory("converted", "embedder", converted).digest == plain.digest


def test_a_network_that_is_only_onnx_counts(store, exported):
    digests = set()
    for name, content in (("a", b"one"), ("b", b"another")):
        directory = exported(name)
        (directory / "inference.json").unlink()
        (directory / "inference.pdiparams").unlink()
        (directory / "inference.onnx").write_bytes(content)
        digests.add(store.add_directory(name, "embedder", directory).digest)
    assert len(digests) == 2


def test_adding_the_same_twice_does_nothing(store, exported):
    directory = exported()
    first = store.add_directory("bottles", "embedder", directory)
    written = (store.root / "bottles" / MANIFEST).stat().st_mtime_ns
    assert store.add_directory("bottles", "embedder", directory) == first
    assert (store.root / "bottles" / MANIFEST).stat().st_mtime_ns == written


def test_other_weights_never_take_a_name_over(store, exported):
    first = store.add_directory("bottles", "embedder", exported("a"))
    with pytest.raises(Conflict, match="under another name"):
        store.add_directory("bottles", "embedder", exported("b", weights=b"other"))
    assert store.get("bottles").digest == first.digest


def test_a_directory_may_stand_for_an_official_model(store, exported):
    assert store.add_directory("PP-ShiTuV2_rec", "embedder", exported()).name == "PP-ShiTuV2_rec"
    with pytest.raises(BadInput, match="name of a detector"):
        store.add_directory("PP-ShiTuV2_det", "embedder", exported("b"))
    with pytest.raises(BadInput, match="starter model"):
        store.add_directory("starter_rec", "embedder", exported("c"))


@pytest.mark.parametrize("name", ["", "../up", ".hidden", "a/b", "a b", "x" * 65, "ä"])
def test_a_name_that_is_no_directory_name_is_refused(store, exported, name):
    with pytest.raises(BadInput, match="cannot name a model"):
        store.add_directory(name, "embedder", exported())


def test_what_is_no_export_is_refused(store, exported, tmp_path):
    with pytest.raises(BadInput, match="no model as PaddleX exports it.*none of them"):
        store.add_directory("x", "embedder", tmp_path)
    with pytest.raises(BadInput, match="not that of a detector: it lacks Preprocess, label_list"):
        store.add_directory("x", "detector", exported("a"))
    with pytest.raises(BadInput, match="it lacks NormalizeFeatures"):
        store.add_directory("x", "embedder", exported("b", PostProcess=None))
    with pytest.raises(BadInput, match="is not a role"):
        store.add_directory("x", "classifier", exported("c"))


def test_a_model_that_fails_its_trial_is_not_installed(store, exported, monkeypatch):
    def fails(*_, **__):
        raise child.ChildFailed("two different pictures get the same vector")

    monkeypatch.setattr(child, "run", fails)
    with pytest.raises(BadInput, match="cannot be used: two different pictures"):
        store.add_directory("x", "embedder", exported())
    assert store.names() == []


def test_damage_is_noticed(store, exported):
    directory = exported()
    model = store.add_directory("bottles", "embedder", directory)
    weights = model.directory / "inference.pdiparams"
    weights.write_bytes(b"WEIGHTS")  # as many bytes as before
    with pytest.raises(ModelUnavailable, match="inference.pdiparams"):
        store.get("bottles").verify()
    weights.write_bytes(b"")
    with pytest.raises(ModelUnavailable, match="damaged: inference.pdiparams"):
        store.get("bottles")
    assert store.installed() == []
    assert store.names() == ["bottles"]
    store.add_directory("bottles", "embedder", directory)  # installing again mends it
    store.get("bottles").verify()


def test_a_broken_manifest_is_damage(store, exported):
    model = store.add_directory("bottles", "embedder", exported())
    for broken in ("", "[]", "{}", json.dumps({"files": {"x": {}}})):
        (model.directory / MANIFEST).write_text(broken)
        with pytest.raises(ModelUnavailable, match="shitu.json"):
            store.get("bottles")


def test_a_models_directory_that_cannot_be_made_is_an_error_with_the_remedy(exported, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(SetupError, match="SHITU_MODELS_DIR"):
        ModelStore(tmp_path / "file" / "models").add_directory("x", "embedder", exported())
