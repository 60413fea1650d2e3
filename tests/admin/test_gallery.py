"""Products and gallery images: what staff do goes through the services."""

from __future__ import annotations

import pytest
from django.core.files.storage import default_storage
from django.core.files.uploadedfile import SimpleUploadedFile
from django.urls import reverse

from recognition.models import Action, AuditEntry, Catalogue, GalleryImage, Product, State
from recognition.services import products
from tests import factories
from tests.admin.browser import posted

IMAGES = "admin:recognition_galleryimage"
PRODUCTS = "admin:recognition_product"


def version() -> int:
    return Catalogue.objects.get().version


def upload(seed: int) -> SimpleUploadedFile:
    return SimpleUploadedFile("tea.png", factories.png(seed), "image/png")


def test_a_picture_is_added_to_a_product(staff, rows):
    response = staff.post(
        reverse(f"{IMAGES}_add"), {"product": rows.product.pk, "file": upload(9), "box": ""}
    )
    assert response.status_code == 302
    image = GalleryImage.objects.latest("pk")
    assert (image.product, image.source_name, image.added_by) == (
        rows.product,
        "tea.png",
        staff.user,
    )
    assert default_storage.exists(image.file.name)


@pytest.mark.parametrize(
    ("data", "reason"), [(b"<html>", "cannot be"), (factories.png(1)[:99], "damaged")]
)
def test_what_is_no_picture_is_refused_at_the_field(staff, rows, data, reason):
    count = GalleryImage.objects.count()
    response = staff.post(
        reverse(f"{IMAGES}_add"),
        {"product": rows.product.pk, "file": SimpleUploadedFile("tea.png", data), "box": ""},
    )
    [message] = response.context["adminform"].form.errors["file"]
    assert "tea.png" in message
    assert GalleryImage.objects.count() == count


def test_the_same_picture_twice_is_refused(staff, rows):
    response = staff.post(
        reverse(f"{IMAGES}_add"), {"product": rows.product.pk, "file": upload(1), "box": ""}
    )
    [message] = response.context["adminform"].form.errors["file"]
    assert "already" in message


def test_a_picture_moves_to_another_product(staff, rows):
    other = factories.add(rows.catalogue, "oolong", 7).product
    before = version()
    staff.post(reverse(f"{IMAGES}_change", args=[rows.galleryimage.pk]), {"product": other.pk})
    rows.galleryimage.refresh_from_db()
    assert rows.galleryimage.product == other
    assert version() > before


def test_failed_ones_are_tried_again(staff, rows):
    staff.post(
        reverse(f"{IMAGES}_changelist"),
        {"action": "try_again", "_selected_action": [rows.failed.pk, rows.galleryimage.pk]},
    )
    rows.failed.refresh_from_db()
    assert (rows.failed.state, rows.failed.error) == (State.PENDING, "")


def test_pictures_are_found_by_the_reason_they_failed_for(staff, rows):
    response = staff.get(reverse(f"{IMAGES}_changelist"), {"reason": "it is torn"})
    assert [image.pk for image in response.context["cl"].result_list] == [rows.failed.pk]


@pytest.mark.parametrize("way", ["one", "several"])
def test_removing_pictures_moves_the_version_and_removes_files(
    staff, rows, way, django_capture_on_commit_callbacks
):
    before, name = version(), rows.failed.file.name
    with django_capture_on_commit_callbacks(execute=True):
        if way == "one":
            staff.post(reverse(f"{IMAGES}_delete", args=[rows.failed.pk]), {"post": "yes"})
        else:
            staff.post(
                reverse(f"{IMAGES}_changelist"),
                {"action": "delete_selected", "_selected_action": [rows.failed.pk], "post": "yes"},
            )
    assert not GalleryImage.objects.filter(pk=rows.failed.pk).exists()
    assert not default_storage.exists(name)
    assert version() == before + 1


def test_all_rows_of_a_list_are_removed_however_many_they_are(staff, rows, settings):
    """A browser would post a field for each of them, and Django refuses more than a thousand."""
    settings.DATA_UPLOAD_MAX_NUMBER_FIELDS = 20
    for number in range(60):
        factories.add(rows.catalogue, f"product {number:02}", 100 + number)
    products = reverse(f"{PRODUCTS}_changelist") + "?q=product"
    chosen = {"action": "delete_selected", "select_across": "1", "_selected_action": [0]}
    question = staff.post(products, chosen).content.decode()
    assert "60" in question
    assert 20 < question.count("<li>product ") < 30
    response = staff.post(products, posted(question, with_field="post"), follow=True)
    assert "Successfully deleted 60" in response.content.decode()
    assert list(Product.objects.values_list("label", flat=True)) == ["green tea"]


def test_so_many_products_as_no_list_holds_are_not_merged(staff, rows, monkeypatch):
    monkeypatch.setattr("recognition.admin.product.MOST_MERGED", 1)
    other = factories.add(rows.catalogue, "oolong", 7).product
    response = staff.post(
        reverse(f"{PRODUCTS}_changelist"),
        {"action": "merge", "_selected_action": [rows.product.pk, other.pk]},
        follow=True,
    )
    assert "choose fewer" in response.content.decode()


def test_pictures_that_left_the_list_meanwhile_are_not_moved(staff, rows):
    response = staff.post(
        reverse(f"{IMAGES}_changelist") + "?state__exact=failed",
        {"action": "move", "_selected_action": [rows.galleryimage.pk], "chosen": "oolong"},
        follow=True,
    )
    assert "not in this list any more" in response.content.decode()


def test_a_product_is_made(staff, rows):
    form = {"catalogue": rows.catalogue.pk, "label": "black tea", "sku": "T-7", "is_active": "on"}
    staff.post(reverse(f"{PRODUCTS}_add"), form | {"attributes": '{"leaf": true}', "names": "{}"})
    made = Product.objects.get(label="black tea")
    assert (made.sku, made.attributes) == ("T-7", {"leaf": True})


def test_a_taken_label_is_refused_at_the_field(staff, rows):
    other = factories.add(rows.catalogue, "oolong", 7).product
    response = staff.post(
        reverse(f"{PRODUCTS}_change", args=[other.pk]),
        {"label": "green tea", "attributes": "{}", "names": "{}", "is_active": "on"},
    )
    assert response.context["adminform"].form.errors["label"]


@pytest.mark.parametrize(("action", "active"), [("deactivate", False), ("activate", True)])
def test_products_are_switched_on_and_off(staff, rows, action, active):
    Product.objects.update(is_active=not active)
    before = version()
    staff.post(
        reverse(f"{PRODUCTS}_changelist"),
        {"action": action, "_selected_action": [rows.product.pk]},
    )
    rows.product.refresh_from_db()
    assert rows.product.is_active is active
    assert version() == before + 1


def test_a_removed_product_goes_to_the_trash_and_comes_back(staff, rows):
    staff.post(reverse(f"{PRODUCTS}_delete", args=[rows.product.pk]), {"post": "yes"})
    assert not Product.objects.exists()
    trash = reverse(f"{PRODUCTS}_changelist") + "?place=trash"
    page = staff.get(trash)
    assert [row.pk for row in page.context["cl"].result_list] == [rows.product.pk]
    staff.post(trash, {"action": "restore", "_selected_action": [rows.product.pk]})
    assert Product.objects.get() == rows.product
    assert GalleryImage.objects.count() == 2


def test_what_is_in_the_trash_is_nowhere_else(staff, rows):
    staff.post(reverse(f"{PRODUCTS}_delete", args=[rows.product.pk]), {"post": "yes"})
    for address in (f"{PRODUCTS}_changelist", f"{IMAGES}_changelist"):
        assert staff.get(reverse(address)).context["cl"].result_count == 0
    response = staff.get(
        reverse("admin:autocomplete"),
        {"app_label": "recognition", "model_name": "galleryimage", "field_name": "product"},
    )
    assert response.json()["results"] == []


def test_a_taken_label_is_told_when_restoring(staff, rows):
    staff.post(reverse(f"{PRODUCTS}_delete", args=[rows.product.pk]), {"post": "yes"})
    factories.add(rows.catalogue, "green tea", 8)
    trash = reverse(f"{PRODUCTS}_changelist") + "?place=trash"
    response = staff.post(
        trash, {"action": "restore", "_selected_action": [rows.product.pk]}, follow=True
    )
    assert "another product is “green tea” by now" in response.content.decode()


def test_a_box_is_given_and_the_picture_embedded_anew(staff, rows):
    GalleryImage.objects.update(state=State.DONE)
    form = {"product": rows.product.pk, "box": "[4, 4, 40, 30]"}
    staff.post(reverse(f"{IMAGES}_change", args=[rows.galleryimage.pk]), form)
    rows.galleryimage.refresh_from_db()
    assert rows.galleryimage.box == [4, 4, 40, 30]
    assert rows.galleryimage.state == State.PENDING


def test_a_box_outside_of_the_picture_is_refused_at_the_field(staff, rows):
    form = {"product": rows.product.pk, "box": "[400, 4, 900, 30]"}
    response = staff.post(reverse(f"{IMAGES}_change", args=[rows.galleryimage.pk]), form)
    assert response.context["adminform"].form.errors["box"]


def act(staff, kind: str, action: str, rows, **more):
    chosen = {"action": action, "_selected_action": [row.pk for row in rows]}
    return staff.post(reverse(f"{kind}_changelist"), chosen | more, follow=True)


def test_products_are_merged_into_one_of_them(staff, rows):
    other = factories.add(rows.catalogue, "tea, green", 7).product
    page = act(staff, PRODUCTS, "merge", [rows.product, other])
    assert "Which one stays?" in page.content.decode()
    act(staff, PRODUCTS, "merge", [rows.product, other], chosen=rows.product.pk)
    assert Product.objects.get() == rows.product
    assert rows.product.images.count() == 3


def test_a_merge_of_one_is_refused_at_the_question(staff, rows):
    page = act(staff, PRODUCTS, "merge", [rows.product], chosen=rows.product.pk)
    assert "name one or more other products" in page.content.decode()


def test_products_move_to_another_catalogue(staff, rows):
    other = factories.catalogue()
    act(staff, PRODUCTS, "move", [rows.product], chosen=other.pk)
    rows.product.refresh_from_db()
    assert rows.product.catalogue == other
    assert other.images.count() == 2


def test_pictures_move_to_a_product_by_its_label(staff, rows):
    other = factories.add(rows.catalogue, "oolong", 7).product
    both = [rows.galleryimage, rows.failed]
    page = act(staff, IMAGES, "move", both, chosen="oolng")
    assert "no product “oolng”" in page.content.decode()
    act(staff, IMAGES, "move", both, chosen="oolong")
    assert other.images.count() == 3


def test_pictures_of_several_catalogues_do_not_move_together(staff, rows):
    foreign = factories.add(factories.catalogue(), "oolong", 7)
    page = act(staff, IMAGES, "move", [rows.galleryimage, foreign])
    assert "of one catalogue only" in page.content.decode()


def test_chosen_pictures_are_embedded_again(staff, rows):
    GalleryImage.objects.update(state=State.DONE)
    page = act(staff, IMAGES, "embed_again", [rows.galleryimage])
    assert "1 picture waits to be embedded again" in page.content.decode()
    states = dict(GalleryImage.objects.values_list("pk", "state"))
    assert states == {rows.galleryimage.pk: State.PENDING, rows.failed.pk: State.DONE}
    entry = AuditEntry.objects.filter(action=Action.IMAGE_REEMBED).get()
    assert (entry.count, entry.details["ids"]) == (1, [rows.galleryimage.pk])


def test_what_came_as_a_vector_keeps_it_and_that_is_said(staff, rows):
    GalleryImage.objects.update(state=State.DONE)
    GalleryImage.objects.filter(pk=rows.failed.pk).update(file="")
    page = act(staff, IMAGES, "embed_again", [rows.galleryimage, rows.failed]).content.decode()
    assert "1 picture waits to be embedded again" in page
    assert "1 came as a vector without a picture, so it keeps its vector" in page
    assert GalleryImage.objects.get(pk=rows.failed.pk).state == State.DONE


def test_all_pictures_of_products_are_embedded_again(staff, rows):
    other = factories.add(rows.catalogue, "oolong", 7).product
    empty = products.create(rows.catalogue, "empty")
    GalleryImage.objects.update(state=State.DONE)
    page = act(staff, PRODUCTS, "embed_again", [rows.product])
    assert "2 pictures wait to be embedded again" in page.content.decode()
    assert other.images.get().state == State.DONE
    assert set(rows.product.images.values_list("state", flat=True)) == {State.PENDING}
    page = act(staff, PRODUCTS, "embed_again", [empty])
    assert "There are no pictures to embed." in page.content.decode()
