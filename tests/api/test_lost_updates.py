"""ETag and If-Match: nobody undoes what they have not seen."""

from __future__ import annotations

import pytest

from recognition.services import index_jobs
from tests import factories, processes


@pytest.fixture
def product(catalogue):
    return factories.add(catalogue, "tea", 1).product


def test_the_second_of_two_writers_is_told(editor, url, product):
    address = url("products", product.pk)
    seen = editor.get(address)["ETag"]
    first = editor.patch(address, {"label": "green"}, format="json", headers={"If-Match": seen})
    assert first.status_code == 200
    second = editor.patch(address, {"label": "red"}, format="json", headers={"If-Match": seen})
    assert second.status_code == 412
    assert second.json()["error"]["code"] == "version_mismatch"
    assert editor.get(address).json()["label"] == "green"
    third = editor.patch(
        address, {"label": "red"}, format="json", headers={"If-Match": first["ETag"]}
    )
    assert third.status_code == 200


def test_an_image_more_is_no_change_of_the_product(editor, url, catalogue, product):
    address = url("products", product.pk)
    seen = editor.get(address)["ETag"]
    factories.add(catalogue, "tea", 2)
    assert editor.get(address)["ETag"] == seen


def test_chosen_fields_do_not_change_the_version(editor, url, product):
    address = url("products", product.pk)
    assert editor.get(address, {"fields": "id"})["ETag"] == editor.get(address)["ETag"]


def test_a_catalogue_likewise(manager, url):
    seen = manager.get(url())["ETag"]
    assert manager.patch(url(), {"top_k": 7}, format="json").status_code == 200
    old = manager.patch(url(), {"top_k": 8}, format="json", headers={"If-Match": seen})
    assert old.status_code == 412
    assert manager.delete(url(), headers={"If-Match": seen}).status_code == 412
    assert manager.get(url()).json()["top_k"] == 7


@pytest.mark.parametrize(
    ("header", "status"), [("*", 200), ('"x", %s', 200), ("W/%s", 412), ("garbage", 200)]
)
def test_ways_to_write_it(manager, url, header, status):
    seen = manager.get(url())["ETag"]
    header = header.replace("%s", seen)
    response = manager.patch(url(), {"top_k": 2}, format="json", headers={"If-Match": header})
    assert response.status_code == status


def test_removing_needs_the_version_too(editor, url, product):
    address = url("products", product.pk)
    assert editor.delete(address, headers={"If-Match": '"old"'}).status_code == 412
    seen = editor.get(address)["ETag"]
    assert editor.delete(address, headers={"If-Match": seen}).status_code == 204


@pytest.mark.django_db(transaction=True)
def test_who_waited_for_another_sees_what_that_one_did_to_the_index(manager, url, catalogue):
    """The index is a row of its own beside the catalogue's, which is the one that is locked."""
    seen = manager.get(url())["ETag"]
    late = processes.behind(
        lambda: index_jobs.change(catalogue, metric="L2"),
        lambda: manager.patch(
            url(), {"metric": "cosine"}, format="json", headers={"If-Match": seen}
        ),
    )
    assert late.status_code == 412
    assert manager.get(url()).json()["metric"] == "L2"
