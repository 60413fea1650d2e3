"""A catalogue leaves as the data set PaddleX trains its image-feature module on."""

from __future__ import annotations

import json

import numpy as np
import pytest
from django.core.management import call_command
from PIL import Image

from recognition.errors import BadInput, Conflict
from recognition.models import GalleryImage
from recognition.services import index_files, training_sets
from recognition.services import products as product_services
from recognition.services.training_sets import Split, export_training_set
from tests import factories
from tests.paddlex_files.conftest import unit_vectors

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("stub_files")]


@pytest.fixture
def shelf(catalogue, run_tasks):
    """Ten products with four pictures each, and one with a single picture."""
    with run_tasks():
        for seed in range(40):
            factories.add(catalogue, f"商品 {seed // 4}", seed=seed)
        factories.add(catalogue, "single", seed=100)
    return catalogue


def lines(directory, name: str) -> list[tuple[str, int]]:
    found = []
    for line in (directory / f"{name}.txt").read_text().splitlines():
        path, of = line.split(" ")
        assert (directory / path).is_file()
        found.append((path, int(of)))
    return found


def test_products_are_either_learnt_from_or_asked_about(shelf, tmp_path):
    made = export_training_set(shelf, tmp_path / "set", seed=1)
    train, asked = lines(tmp_path / "set", "train"), lines(tmp_path / "set", "query")
    references = lines(tmp_path / "set", "gallery")
    assert (made.train, made.gallery, made.query) == (len(train), len(references), len(asked))
    assert made.train + made.gallery + made.query == 41
    assert {of for _, of in train} == set(range(made.num_classes))
    assert {of for _, of in asked} == {of for _, of in references}
    assert {of for _, of in asked} == set(
        range(made.num_classes, made.num_classes + made.held_back)
    )
    assert made.held_back == 2
    paths = [path for path, _ in train + references + asked]
    assert len(set(paths)) == 41


def test_every_number_says_its_product(shelf, tmp_path):
    export_training_set(shelf, tmp_path / "set")
    text = (tmp_path / "set" / "label.txt").read_text(encoding="utf-8").splitlines()
    labels = dict(line.split(" ", 1) for line in text)
    assert len(labels) == 11
    products = dict(shelf.images.values_list("number", "product__label"))
    for name in ("train", "gallery", "query"):
        for path, of in lines(tmp_path / "set", name):
            assert products[int(path[7:].split(".")[0])] == labels[str(of)]


def test_a_product_with_one_picture_is_learnt_from(shelf, tmp_path):
    for seed in range(6):
        export_training_set(shelf, tmp_path / f"{seed}", seed=seed, split=Split(train=0.5))
        single = shelf.images.get(product__label="single").number
        assert f"images/{single}.png" in dict(lines(tmp_path / f"{seed}", "train"))


def test_the_seed_decides(shelf, tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        export_training_set(shelf, tmp_path / name, seed=seed)
    a, b, c = (lines(tmp_path / name, "query") for name in "abc")
    assert a == b != c


def test_pictures_are_those_stored_or_cut_to_their_box(catalogue, run_tasks, tmp_path):
    with run_tasks():
        for seed in range(8):
            box = [8, 4, 40, 36] if seed == 5 else None
            factories.add(catalogue, f"p{seed // 2}", seed=seed, box=box)
    export_training_set(catalogue, tmp_path / "whole")
    export_training_set(catalogue, tmp_path / "cut", crop=True)
    assert (tmp_path / "whole" / "images" / "5.png").read_bytes() == factories.png(5)
    assert (tmp_path / "cut" / "images" / "4.png").read_bytes() == factories.png(4)
    whole = np.asarray(Image.open(tmp_path / "whole" / "images" / "5.png"))
    cut = np.asarray(Image.open(tmp_path / "cut" / "images" / "5.png"))
    assert (cut == whole[4:36, 8:40]).all()


def test_inactive_products_and_vectors_without_pictures_stay_out(
    shelf, tmp_path, index_directory, read_here
):
    product_services.change(shelf.products.get(label="商品 3"), is_active=False)
    directory = index_directory(unit_vectors(2), ["a", "b"])
    index_files.import_directory(shelf, directory, feature_model="stub_rec", by=None)
    made = export_training_set(shelf, tmp_path / "set")
    assert made.train + made.gallery + made.query == 37
    assert made.left_out == tuple(
        GalleryImage.objects.filter(file="").order_by("number").values_list("number", flat=True)
    )


def test_too_few_products_are_refused(catalogue, run_tasks, tmp_path):
    with run_tasks():
        for seed in range(3):
            factories.add(catalogue, f"p{seed}", seed=seed)
    with pytest.raises(BadInput, match="0 of them with two or more"):
        export_training_set(catalogue, tmp_path / "set")
    assert not (tmp_path / "set").exists()


@pytest.mark.parametrize("split", [Split(train=1.0), Split(train=0.0), Split(query=1.5)])
def test_shares_that_leave_a_list_empty_are_refused(catalogue, tmp_path, split):
    with pytest.raises(BadInput, match="must lie between 0 and 1"):
        export_training_set(catalogue, tmp_path / "set", split=split)


def test_a_directory_with_something_in_it_is_left_alone(shelf, tmp_path):
    with pytest.raises(Conflict):
        export_training_set(shelf, tmp_path.parent)


def test_it_remembers_what_is_asked(shelf, tmp_path):
    export_training_set(shelf, tmp_path / "set", seed=3)
    numbers = training_sets.held_back_queries(tmp_path / "set", shelf)
    assert [f"images/{n}.png" for n in numbers] == [
        path for path, _ in lines(tmp_path / "set", "query")
    ]
    with pytest.raises(BadInput, match="another catalogue"):
        training_sets.held_back_queries(tmp_path / "set", factories.catalogue())
    with pytest.raises(BadInput, match="no training set"):
        training_sets.held_back_queries(tmp_path, shelf)
    about = json.loads((tmp_path / "set" / "split.json").read_text())
    assert (about["seed"], about["num_classes"]) == (3, 9)


def test_the_command_and_the_checker_of_paddlex(shelf, tmp_path, capsys, in_paddlex):
    call_command("export_training_set", catalogue=shelf.name, output=str(tmp_path / "set"))
    assert "Train.num_classes=9" in capsys.readouterr().out
    answer = in_paddlex(
        "check_dataset", dataset=str(tmp_path / "set"), output=str(tmp_path / "out")
    )
    assert answer["check_pass"] is True
    assert answer["dataset_type"] == "ShiTuRecDataset"
    found = answer["attributes"]
    assert (found["train_samples"], found["gallery_samples"], found["query_samples"]) == tuple(
        len(lines(tmp_path / "set", name)) for name in ("train", "gallery", "query")
    )
    assert (tmp_path / "out" / "check_dataset" / "histogram.png").is_file()
