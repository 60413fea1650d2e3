"""Pictures: as stored, or small; kept by one browser only."""

from __future__ import annotations

import io

import pytest
from django.core.files.storage import default_storage
from django.urls import reverse
from PIL import Image

from tests import factories


@pytest.fixture
def addresses(catalogue, waiting) -> list[str]:
    [number] = catalogue.images.values_list("number", flat=True)
    return [
        reverse("gallery-picture", args=[catalogue.key, number]),
        reverse("query-picture", args=[waiting.key]),
    ]


def test_the_bytes_that_are_stored(member, addresses):
    for address in addresses:
        response = member.get(address)
        assert b"".join(response.streaming_content) == factories.png(1)
        assert response["Content-Type"] == "image/png"


def test_headers_keep_them_private(member, addresses):
    for address in addresses:
        for response in (member.get(address), member.get(f"{address}160/")):
            assert response["Cache-Control"] == "private, max-age=86400, immutable"
            assert response["X-Content-Type-Options"] == "nosniff"


def test_a_small_one_that_is_still_good_is_not_made_again(member, addresses):
    for address in addresses:
        etag = member.get(f"{address}160/")["ETag"]
        kept = member.get(f"{address}160/", headers={"If-None-Match": etag})
        assert (kept.status_code, kept.content, kept["ETag"]) == (304, b"", etag)
        assert kept["Cache-Control"] == "private, max-age=86400, immutable"
        assert member.get(f"{address}480/", headers={"If-None-Match": etag}).status_code == 200


def test_a_thumbnail_is_a_small_jpeg(member, catalogue):
    factories.add(catalogue, "big", 2)
    image = catalogue.images.get()
    with default_storage.open(image.file.name, "wb") as file:
        file.write(factories.png(2, (900, 600)))
    response = member.get(reverse("gallery-thumbnail", args=[catalogue.key, image.number, 160]))
    assert response["Content-Type"] == "image/jpeg"
    with Image.open(io.BytesIO(response.content)) as small:
        assert (small.format, small.size) == ("JPEG", (160, 107))


def test_only_sizes_that_the_pages_use(member, addresses):
    for address in addresses:
        assert member.get(f"{address}161/").status_code == 404


def test_a_lost_file_is_404(member, catalogue, addresses):
    default_storage.delete(catalogue.images.get().file.name)
    assert member.get(addresses[0]).status_code == 404
    assert member.get(f"{addresses[0]}160/").status_code == 404
