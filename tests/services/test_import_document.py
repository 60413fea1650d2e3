"""What docs/importing.md says about formats and limits is so; its examples are imported."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest

from recognition import gallery_list
from recognition.models import LineResult
from recognition.services.imports import columns, formats, google, manifest, places, site_archive
from tests.factories import png
from tests.services.test_import import imported, labels, outcome, packed

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "importing.md").read_text()
SECTIONS = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", TEXT, re.M | re.S))


def section(start: str) -> str:
    return next(body for title, body in SECTIONS.items() if title.startswith(start))


def example(start: str, language: str) -> str:
    return re.findall(rf"```{language}\n(.*?)```", section(start), re.S)[0]


def in_table(start: str, columns: int) -> set[str]:
    """What stands as code in the first columns of the table of a section, its head included."""
    rows = [line.split("|") for line in section(start).splitlines() if line.startswith("| `")]
    cells = [cell for row in rows for cell in row[1 : 1 + columns]]
    return {name for cell in cells for name in re.findall(r"`([^`]+)`", cell)}


@pytest.mark.django_db
class TestExamples:
    def test_a_gallery_list(self, catalogue):
        files = {"images/front.png": png(1), "images/back.png": png(2)}
        job = imported(catalogue, packed({"gallery.txt": example("PaddleX", "text")} | files))
        assert outcome(job) == [(1, "ok"), (2, "ok")]
        assert labels(catalogue) == ["green tea", "green tea 500 ml"]

    def test_folders(self, catalogue):
        names = example("A folder", "text").split("\n")[:-1]
        imported(catalogue, packed({name: png(number) for number, name in enumerate(names)}))
        assert labels(catalogue) == ["green tea", "green tea", "coffee"]

    def test_a_manifest(self, catalogue):
        files = {"front.png": png(1), "back.png": png(2)}
        job = imported(catalogue, packed({"list.csv": example("CSV", "csv")} | files))
        assert outcome(job) == [(2, "ok"), (3, "ok"), (4, "ok")]
        tea, coffee = catalogue.products.order_by("external_id")
        assert (tea.label, tea.external_id, str(tea.price)) == ("green tea", "P-1", "1.9900")
        assert (tea.names, tea.attributes) == ({"zh-Hans": "绿茶"}, {"ml": 500})
        assert tea.images.get(external_id="front").box == [2, 2, 40, 40]
        assert (coffee.is_active, coffee.category) == (False, "drinks/coffee")

    def test_googles_bulk_csv(self, catalogue, monkeypatch):
        monkeypatch.setattr(manifest, "fetch_picture", lambda url: png(len(url)))
        source = io.BytesIO(example("Google", "csv").encode())
        job = imported(catalogue, source, "bulk.csv")
        assert outcome(job) == [(1, "ok"), (2, "ok")]
        shoe = catalogue.products.get(external_id="P-7")
        assert (shoe.label, shoe.category) == ("Red Shoe", "apparel")
        assert shoe.attributes == {"product-set-id": "shoes", "color": "red", "style": "kids"}
        assert shoe.images.get().box == [10, 10, 60, 40]


def test_every_column_of_a_manifest_is_there():
    maps = {
        f"{prefix}{mark}"
        for prefix, mark in zip(columns.PRODUCT_MAPS, ("TAG", "NAME"), strict=True)
    }
    assert in_table("CSV", 2) == {*columns.OWN, *columns.PRODUCT, *maps, *columns.ALIASES}


def test_every_alias_stands_beside_its_column():
    for line in section("CSV").splitlines():
        if line.startswith("| `"):
            _, names, aliases, *_ = line.split("|")
            of = re.findall("`([^`]+)`", names)
            for alias in re.findall("`([^`]+)`", aliases):
                assert columns.canonical(alias) == of[0]


def test_yes_and_no_are_said_as_they_are_read():
    [line] = [line for line in section("CSV").splitlines() if line.startswith("| `active`")]
    words = set(re.findall("`([^`]+)`", line.split("|")[3]))
    assert words == columns._TRUE | columns._FALSE


def test_every_column_of_google_is_there():
    assert in_table("Google", 1) == set(google.COLUMNS)


def test_every_file_of_an_export_is_there():
    for name in (site_archive.CATALOGUE, site_archive.EMBEDDINGS, site_archive.VECTORS):
        assert name in section("An export")


def test_the_results_of_a_line_are_there():
    # Of an import no line waits: it is there once it has been done.
    assert in_table("The report", 1) - {"result"} == set(LineResult.values) - {"waiting"}


@pytest.mark.parametrize(
    "limit",
    [
        f"{places.MOST_FILES:,}",
        f"{places.MOST_FILES_HERE:,}",
        f"{places.MOST_UNPACKED // 2**30} GiB",
        f"{places.MOST_RATIO} times",
        f"{places._RATIO_COUNTS_FROM // 2**20} MiB",
        f"{formats.MOST_LIST // 2**30} GiB",
        f"{manifest.MOST_CELL:,} characters",
        f"{manifest.MOST_SHARED_TEXT // 2**20} MiB",
        f"{manifest.MOST_XML // 2**20} MiB",
        f"{manifest.MOST_TAGS:,} tags",
        f"{manifest.MOST_ATTRIBUTES:,} attributes",
        f"{manifest.MOST_TEXTS:,} texts",
        f"{site_archive.MOST_ITEM // 2**20} MiB or be more than {site_archive.MOST_DEPTH} deep",
        f"{gallery_list.MAX_LABEL_LENGTH} characters",
        f"{gallery_list.MAX_PATH_LENGTH:,} bytes",
        f"{gallery_list.MAX_LINE_LENGTH:,} bytes",
    ],
)
def test_every_limit_is_the_one_in_force(limit):
    assert limit in " ".join(TEXT.split())


@pytest.mark.parametrize("name", sorted(places._JUNK))
def test_what_is_passed_over_is_named(name):
    assert f"`{name}`" in section("A folder")
