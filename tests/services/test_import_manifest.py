"""CSV and XLSX manifests, Google's bulk CSV, and lists nobody should send."""

from __future__ import annotations

import csv
import io
import re
import tracemalloc
import zipfile

import openpyxl
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from openpyxl.reader.strings import read_string_table

from recognition.errors import BadInput, RecognitionError, TooLarge
from recognition.services import products
from recognition.services.imports import columns, manifest, places
from recognition.services.imports.lines import Line
from recognition.services.imports.places import Nowhere
from tests.factories import png
from tests.services.test_import import imported, labels, outcome, packed, reasons

ROWS = [
    ["label", "image", "box", "category", "attributes.size", "attributes.Bio", "active", "colour"],
    ["green tea", "a.png", "2,2,40,40", "drinks/tea", "330", "true", "yes", "red"],
    ["red tea", "b.png", "", "", "", "", "no", ""],
    ["", "", "", "", "", "", "", ""],
    ["coffee", "", "", "drinks", "", "", "", ""],
    ["tea", "a.png", "2,2", "", "", "", "", ""],
    ["tea", "a.png", "", "", "", "", "perhaps", ""],
    ["", "a.png", "", "", "", "", "", ""],
    ["tea", "missing.png", "", "", "", "", "", ""],
]


def as_csv(rows, delimiter=",", encoding="utf-8") -> bytes:
    out = io.StringIO()
    csv.writer(out, delimiter=delimiter).writerows(rows)
    return out.getvalue().encode(encoding)


def as_xlsx(rows) -> bytes:
    book = openpyxl.Workbook()
    for row in rows:
        book.active.append([int(cell) if cell.isdigit() else cell or None for cell in row])
    out = io.BytesIO()
    book.save(out)
    return out.getvalue()


@pytest.fixture(
    params=["csv", "semicolons", "tabs and BOM", "xlsx"],
)
def listing(request) -> tuple[str, bytes]:
    """The same rows in every form."""
    return {
        "csv": ("list.csv", as_csv(ROWS)),
        "semicolons": ("list.csv", as_csv(ROWS, ";")),
        "tabs and BOM": ("list.csv", as_csv(ROWS, "\t", "utf-8-sig")),
        "xlsx": ("list.xlsx", as_xlsx(ROWS)),
    }[request.param]


@pytest.mark.django_db
def test_rows_become_products_with_their_fields_and_pictures(catalogue, listing):
    name, data = listing
    job = imported(catalogue, packed({name: data, "a.png": png(1), "b.png": png(2)}))
    expected = {
        1: "skipped",
        2: "ok",
        3: "ok",
        4: "skipped",
        5: "ok",
        6: "error",
        7: "error",
        8: "error",
        9: "error",
    }
    if name == "list.xlsx":  # a blank row need not even be in the file
        del expected[4]
    assert outcome(job) == list(expected.items())
    said = reasons(job)
    assert said[1] == "not stored: colour"
    assert "box: “2,2” is no box" in said[6]
    assert said[7] == "active: “perhaps” is neither yes nor no"
    assert "label is empty" in said[8]
    assert "no such file" in said[9]
    assert labels(catalogue) == ["green tea", "red tea"]
    green = catalogue.products.get(label="green tea")
    assert (green.category, green.attributes) == ("drinks/tea", {"size": 330, "Bio": True})
    assert green.images.get().box == [2, 2, 40, 40]
    assert not catalogue.products.get(label="red tea").is_active
    assert catalogue.products.get(label="coffee").category == "drinks"


@pytest.mark.django_db
def test_fields_are_added_to_what_is_known(catalogue):
    def tell(row: str) -> None:
        header = "label,category,attributes.a,attributes.b\n"
        imported(catalogue, io.BytesIO(f"{header}{row}\n".encode()), "list.csv")

    tell("tea,drinks,1,")
    version = catalogue.version
    tell("tea,,,2")
    product = catalogue.products.get()
    assert (product.category, product.attributes) == ("drinks", {"a": 1, "b": 2})
    catalogue.refresh_from_db()
    assert catalogue.version > version  # the next answer shows it


@pytest.mark.django_db
def test_a_row_that_tells_nothing_new_is_already_there(catalogue):
    rows = b"external_id,label,category\nP1,tea,drinks\n,coffee,drinks\n,coffee,drinks\n"
    first = imported(catalogue, io.BytesIO(rows), "list.csv")
    assert [result for _, result in outcome(first)] == ["ok"] * 3
    again = imported(catalogue, io.BytesIO(rows + b",milk,drinks\nP1,tea,hot\n"), "list.csv")
    # What a chunk says about one product is written at once.
    assert [result for _, result in outcome(again)] == ["ok", "duplicate", "duplicate", "ok", "ok"]
    again = imported(catalogue, io.BytesIO(rows.replace(b"P1,tea,drinks", b"P1,,")), "list.csv")
    assert [result for _, result in outcome(again)] == ["duplicate"] * 3
    assert reasons(again)[3] == "the product is like that already"


@pytest.mark.django_db
def test_boxes_that_come_after_the_pictures_are_taken_over(catalogue):
    imported(
        catalogue, packed({"gallery.txt": "a.png tea\nb.png tea", "a.png": png(1), "b.png": png(2)})
    )
    rows = 'label,image,box\ntea,a.png,"2,2,40,40"\ntea,b.png,\n'
    for said in ("; changed: box", ""):
        job = imported(catalogue, packed({"list.csv": rows, "a.png": png(1), "b.png": png(2)}))
        assert [result for _, result in outcome(job)] == ["duplicate", "duplicate"]
        assert reasons(job)[2] == f"the product has this picture already (id 0){said}"
        assert reasons(job)[3] == "the product has this picture already (id 1)"
    assert [image.box for image in catalogue.images.order_by("pk")] == [[2, 2, 40, 40], None]


@pytest.mark.django_db
def test_they_are_added_to_what_somebody_else_writes_meanwhile(catalogue, monkeypatch):
    tea = products.create(catalogue, "tea", external_id="1", attributes={"a": 1})
    real = products.bulk_upsert

    def behind_a_change(*args, **how):
        products.change(tea, names={"de": "Tee"}, attributes={"a": 2, "c": 3})
        return real(*args, **how)

    monkeypatch.setattr(products, "bulk_upsert", behind_a_change)
    rows = b"label,external_id,names.en,attributes.b\ntea,1,tea,2\ntea,1,,4\n"
    imported(catalogue, io.BytesIO(rows), "list.csv")
    tea.refresh_from_db()
    assert tea.names == {"de": "Tee", "en": "tea"}
    assert tea.attributes == {"a": 2, "c": 3, "b": 4}


@pytest.mark.django_db
def test_pictures_by_url_go_through_the_guard(catalogue, monkeypatch):
    monkeypatch.setattr(
        manifest, "fetch_picture", lambda url: png(1) if "good" in url else b"<html>"
    )
    rows = b"name,url\ntea,https://example.com/good.png\ntea,https://example.com/bad.png\n"
    job = imported(catalogue, io.BytesIO(rows), "list.csv")
    assert [result for _, result in outcome(job)] == ["ok", "error"]
    assert catalogue.images.get().source_name == "https://example.com/good.png"


@pytest.mark.django_db
def test_a_private_url_is_refused(catalogue):
    job = imported(catalogue, io.BytesIO(b"label,image\ntea,http://127.0.0.1/a.png\n"), "x.csv")
    assert "no address on the public internet" in reasons(job)[2]


@pytest.mark.django_db
def test_a_manifest_alone_has_no_files(catalogue):
    job = imported(catalogue, io.BytesIO(b"label,image\ntea,a.png\n"), "x.csv")
    assert "put both into one ZIP" in reasons(job)[2]


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "empty"),
        (b"label,label\nx,y\n", "none may come twice"),
        (b"a,b\n1,2\n", "must be"),
        ("label,image\n".encode("utf-16"), "not UTF-8"),
        (as_xlsx(ROWS)[:900], "ZIP"),
        (packed({"xl/workbook.xml": "<broken"}).getvalue(), "damaged"),
        (b"label,image\n", "no rows below its header"),
        (as_xlsx(ROWS[:1]), "no rows below its header"),
        (b"image-uri,image-id,product-set-id,product-id\n", "no rows below its header"),
    ],
)
def test_a_list_in_no_known_form_fails_the_job(catalogue, data, why):
    job = imported(catalogue, io.BytesIO(data), "list.csv")
    assert job.state == "failed"
    assert why in job.error


def rewritten(book: bytes, before: bytes, after: bytes, **parts: bytes) -> io.BytesIO:
    """A workbook with other XML in its sheet, and more parts."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(book)) as old, zipfile.ZipFile(out, "w", 8) as new:
        for name in old.namelist():
            data = old.read(name)
            if name == "xl/worksheets/sheet1.xml":
                assert before in data
                data = data.replace(before, after)
            new.writestr(name, data)
        for name, data in parts.items():
            new.writestr(name, data)
    out.seek(0)
    return out


TEA = as_xlsx([["label", "category"], ["tea", "drinks"], ["milk", "drinks"]])
SHEET = zipfile.ZipFile(io.BytesIO(TEA)).read("xl/worksheets/sheet1.xml")


@pytest.mark.parametrize("wrong", [b"A1", b"A1:A1", b"A1:A2", b"A1:XFD1048576"])
def test_a_sheet_that_lies_about_its_size_is_read_whole(wrong):
    book = rewritten(TEA, b'<dimension ref="A1:B3"', b'<dimension ref="%s"' % wrong)
    lines = list(manifest.xlsx_lines(book, Nowhere()))
    assert [(line.number, line.label) for line in lines] == [(2, "tea"), (3, "milk")]
    assert lines[1].product == {"category": "drinks"}


SST = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"


def with_part(name: str, more: bytes) -> io.BytesIO:
    """The workbook with more XML at the end of one of its parts."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(TEA)) as old, zipfile.ZipFile(out, "w", 8) as new:
        for one in old.namelist():
            data = old.read(one)
            if one == name:
                end = data.rindex(b"</")
                data = data[:end] + more + data[end:]
            new.writestr(one, data)
    out.seek(0)
    return out


def sharing(texts: bytes, part: str = "xl/sharedStrings.xml") -> io.BytesIO:
    """The workbook with texts in a part of their own, the first of which is that of A2."""
    kind = (
        b'<Override PartName="/%s" ContentType="application/'
        b'vnd.openxmlformats-officedocument.spreadsheetml.sharedStrings+xml"/></Types>'
    )
    sheet = re.sub(rb'<c r="A2".*?</c>', b'<c r="A2" t="s"><v>0</v></c>', SHEET)
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(TEA)) as old, zipfile.ZipFile(out, "w") as new:
        for name in old.namelist():
            data = old.read(name).replace(SHEET, sheet)
            new.writestr(name, data.replace(b"</Types>", kind % part.encode()))
        new.writestr(part, f'<sst xmlns="{SST}">'.encode() + texts + b"</sst>")
    out.seek(0)
    return out


def manifest_lines(book: io.BytesIO) -> list[Line]:
    return list(manifest.xlsx_lines(book, Nowhere()))


def xml_part(texts: bytes) -> manifest._Part:
    return manifest._Part(io.BytesIO(f'<sst xmlns="{SST}">'.encode() + texts + b"</sst>"))


@pytest.mark.parametrize(
    "text",
    [
        "<t>tea</t>",
        "<t/>",
        "",
        '<t xml:space="preserve"> tea </t>',
        "<r><t>green </t></r><r><rPr><b/></rPr><t>tea</t></r>",
        '<t>茶</t><rPh sb="0" eb="1"><t>cha</t></rPh>',
        "<t>a_x005F_b</t>",
    ],
)
def test_shared_texts_are_read_as_openpyxl_reads_them(text):
    texts = f"<si>{text}</si><si><t>next</t></si>".encode()
    expected = read_string_table(io.BytesIO(f'<sst xmlns="{SST}">'.encode() + texts + b"</sst>"))
    assert list(manifest._texts(xml_part(texts))) == expected


class TestBombs:
    def refusal(self, book: io.BytesIO) -> str:
        assert len(book.getvalue()) < 200_000
        with pytest.raises(RecognitionError) as caught:
            list(manifest.xlsx_lines(book, Nowhere()))
        return caught.value.message

    def test_a_row_beyond_the_last(self):
        for number in (b"1048577", b"99999999999"):
            book = rewritten(TEA, b'<row r="3"', b'<row r="%s"' % number)
            assert "above 1,048,576" in self.refusal(book)

    def test_blank_rows_between_and_behind_are_no_lines(self):
        rows = b"".join(b'<row r="%d"><c r="A%d"/></row>' % (n, n) for n in range(50_001, 50_999))
        book = rewritten(
            TEA,
            b'<row r="3"><c r="A3"',
            b'<row r="50000"><c r="A50000"',
        ).getvalue()
        book = rewritten(book, b"</sheetData>", rows + b"</sheetData>")
        numbers = [line.number for line in manifest.xlsx_lines(book, Nowhere())]
        assert numbers == [2, 50_000]

    @pytest.mark.parametrize("bound", ["MOST_XML", "MOST_TAGS"])
    @pytest.mark.parametrize("size", [b'<dimension ref="A1:B3"/>', b""])
    def test_a_row_of_endless_cells(self, monkeypatch, bound, size):
        monkeypatch.setattr(manifest, bound, 100_000)
        sized = re.sub(rb"<dimension[^>]*>", size, SHEET)
        cells = b'<row r="4">' + b"<c/>" * 200_000 + b"</row></sheetData>"
        sheet = sized.replace(b"</sheetData>", cells)
        read: list[int] = []
        real = openpyxl.worksheet._reader.WorkSheetParser.parse_dimensions

        def parse_dimensions(parser):
            found = real(parser)
            read.append(parser.source.tell())
            return found

        monkeypatch.setattr(
            openpyxl.worksheet._reader.WorkSheetParser, "parse_dimensions", parse_dimensions
        )
        assert "unpacks to too much" in self.refusal(rewritten(TEA, SHEET, sheet))
        assert max(read) < 100  # nor when the workbook is loaded

    def test_shared_texts_are_not_taken_for_a_sheet(self):
        first, _ = manifest_lines(sharing(b"<si><t>tea</t></si>", "xl/texts.xml"))
        assert first.label == "tea"
        assert "damaged" in self.refusal(sharing(b"<si><t>tea</t></si>", "xl/worksheets/texts.xml"))

    @pytest.mark.parametrize("name", ["xl/worksheets/sheet9.xml", "xl/sheets/text.xml"])
    def test_parts_that_are_much_more_than_was_sent(self, name):
        book = rewritten(TEA, b"</sheetData>", b"</sheetData>", **{name: bytes(40 * 2**20)})
        assert "unpacks to too much" in self.refusal(book)

    def test_only_sheets_may_be_larger_than_what_is_kept_in_memory(self, monkeypatch):
        monkeypatch.setattr(manifest, "MOST_SHARED_TEXT", 50_000)
        part = bytes(60_000)
        for name in ("xl/worksheets/../text.xml", "xl/sheets/text.xml", "worksheets/text.xml"):
            book = rewritten(TEA, b"</sheetData>", b"</sheetData>", **{name: part})
            assert "unpacks to too much" in self.refusal(book)
        sheet = {"xl/worksheets/sheet2.xml": part}
        book = rewritten(TEA, b"</sheetData>", b"</sheetData>", **sheet)
        assert len(list(manifest.xlsx_lines(book, Nowhere()))) == 2
        monkeypatch.setattr(manifest, "MOST_SHEETS", 50_000)
        assert "unpacks to too much" in self.refusal(book)

    @pytest.mark.parametrize(
        "part",
        [
            "[Content_Types].xml",
            "xl/workbook.xml",
            "xl/_rels/workbook.xml.rels",
            "xl/styles.xml",
            "docProps/core.xml",
        ],
    )
    def test_parts_that_are_kept_as_trees_are_counted_first(self, part):
        """256 MiB of them were 67 million elements, in 1.3 MB."""
        tracemalloc.start()
        try:
            assert "unpacks to too much" in self.refusal(with_part(part, b"<a/>" * 600_000))
            assert tracemalloc.get_traced_memory()[1] < 30 * 2**20
        finally:
            tracemalloc.stop()

    def test_attributes_and_bytes_of_a_part_are_counted_too(self, monkeypatch):
        many = b"<a %s/>" % b" ".join(b'a%d=""' % number for number in range(3000))
        for name, most in (("MOST_ATTRIBUTES", 2000), ("MOST_XML", 20_000)):
            with monkeypatch.context() as patch:
                patch.setattr(manifest, name, most)
                assert "unpacks to too much" in self.refusal(with_part("xl/styles.xml", many))

    def test_what_lies_between_shared_texts_is_not_kept(self, monkeypatch):
        monkeypatch.setattr(manifest, "MOST_TAGS", 10_000)
        texts = (b"<si><t>tea</t></si>" + b"<a/>" * 4000) * 20
        assert list(manifest._texts(xml_part(texts))) == ["tea"] * 20
        for endless in (b"<si>" + b"<si/>" * 20_000, b"<a>" + b"<si><t>tea</t></si>" * 9000):
            with pytest.raises(TooLarge, match="unpacks to too much"):
                list(manifest._texts(xml_part(endless)))

    def test_shared_texts_have_a_number(self, monkeypatch):
        monkeypatch.setattr(manifest, "MOST_TEXTS", 100)
        first, _ = manifest_lines(sharing(b"<si><t>tea</t></si>" * 100))
        assert first.label == "tea"
        assert "unpacks to too much" in self.refusal(sharing(b"<si><t>tea</t></si>" * 101))

    def test_a_directory_too_long_to_read(self, monkeypatch):
        monkeypatch.setattr(places, "MOST_FILES", 3)
        with pytest.raises(TooLarge, match="more than 3 files"):
            list(manifest.xlsx_lines(io.BytesIO(TEA), Nowhere()))

    def test_a_csv_row_without_end(self, monkeypatch):
        monkeypatch.setattr(manifest, "MOST_RECORD", 1000)
        rows = b"label,image\ntea,a.png\n" * 100 + b"milk," + b'"a\n",' * 300
        lines = manifest.csv_lines(io.BytesIO(rows), Nowhere())
        found: list[Line] = []
        with pytest.raises(BadInput, match="begins in line 201 has more than 1,000 bytes"):
            found.extend(lines)
        assert [line.number for line in found] == list(range(2, 201))  # they are in

    def test_what_the_report_shows_of_a_row_is_short(self):
        row = ",".join(["tea", "a.png", '"' + "9" * 100_000 + '"', *["x" * 100] * 300])
        [line] = manifest.csv_lines(io.BytesIO(f"label,image,box\n{row}\n".encode()), Nowhere())
        assert line.text.startswith("tea, a.png, 999") and len(line.text) <= 500
        box = b"label,box\ntea," + b"9" * 100_000 + b"\n"
        [line] = manifest.csv_lines(io.BytesIO(box), Nowhere())
        assert "box" in line.problem and len(line.problem) <= 500
        kept = manifest._shown(["x" * 600] * 100_000)
        assert kept == "x" * 500


@pytest.mark.django_db
def test_two_lists_are_one_too_many(catalogue):
    job = imported(catalogue, packed({"a.csv": "label\nx\n", "b.csv": "label\ny\n"}))
    assert "several lists" in job.error


class TestGoogle:
    LINES = (
        'gs://my bucket/a.png,i1,set,p1,apparel,Red Shoe,"color=red,color=black,style=kids",'
        '"0.5,10,60.2,10,60.2,40,0.5,40"\n'
        "https://example.com/b.png,,set,p1,apparel,Red Shoe\n"
        "https://example.com/c.png,,set,p2,apparel,,,\n"
        "https://example.com/cc.png,,set,p5,,Red Shoe\n"
        "https://example.com/ccc.png,,set,p1\n"
        ",,set,p3,apparel\n"
        'gs://b/d.png,,set,p4,apparel,,colour,"1,2,3"\n'
    )
    HEADER = (
        "image-uri,image-id,product-set-id,product-id,product-category,product-display-name,"
        "labels,bounding-poly\n"
    )

    @pytest.fixture(autouse=True)
    def fetched(self, monkeypatch) -> list[str]:
        urls: list[str] = []

        def fetch(url: str) -> bytes:
            urls.append(url)
            return png(len(url))

        monkeypatch.setattr(manifest, "fetch_picture", fetch)
        return urls

    @pytest.mark.django_db
    @pytest.mark.parametrize("header", ["", HEADER])
    def test_the_bulk_csv_is_accepted_as_it_is(self, catalogue, fetched, header):
        job = imported(catalogue, io.BytesIO((header + self.LINES).encode()), "bulk.csv")
        assert [result for _, result in outcome(job)] == ["ok"] * 5 + ["error"] * 2
        assert labels(catalogue) == ["Red Shoe", "Red Shoe", "p2", "Red Shoe (p5)", "Red Shoe"]
        shoe = catalogue.products.get(external_id="p1")
        assert (shoe.label, shoe.category) == ("Red Shoe", "apparel")
        assert shoe.attributes == {
            "color": ["red", "black"],
            "style": "kids",
            "product-set-id": "set",
        }
        image = shoe.images.order_by("number")[0]
        assert (image.external_id, image.box) == ("i1", [0, 10, 60, 40])
        assert "https://storage.googleapis.com/my%20bucket/a.png" in fetched

    def test_labels_may_stand_below_each_other(self):
        labels = 'color=red\r\ncolor=black,"size=1,5"\n\nstyle=kids\n'.replace('"', '""')
        data = f'gs://b/a.png,i,set,p,,Shoe,"{labels}"\ngs://b/b.png,j,set,q,,Hat,"x\ny=1"\n'
        shoe, hat = manifest.csv_lines(io.BytesIO(data.encode()), Nowhere())
        assert shoe.product["attributes"] == {
            "color": ["red", "black"],
            "size": "1,5",
            "style": "kids",
            "product-set-id": "set",
        }
        assert "“x” is not key=value" in hat.problem

    @pytest.mark.django_db
    def test_again_it_changes_nothing(self, catalogue):
        imported(catalogue, io.BytesIO(self.LINES.encode()), "bulk.csv")
        before = list(
            catalogue.products.order_by("pk").values("label", "external_id", "attributes")
        )
        job = imported(catalogue, io.BytesIO(self.LINES.encode()), "bulk.csv")
        assert [result for _, result in outcome(job)] == ["duplicate"] * 5 + ["error"] * 2
        after = list(catalogue.products.order_by("pk").values("label", "external_id", "attributes"))
        assert after == before


@pytest.mark.django_db
class TestExternalIds:
    def run(self, catalogue, rows: str):
        files = {f"{name}.png": png(number) for number, name in enumerate("abcd")}
        return imported(catalogue, packed({"list.csv": rows} | files))

    def test_the_product_is_the_one_with_the_id_and_takes_the_new_label(self, catalogue):
        self.run(catalogue, "external_id,label,image\nP1,tea,a.png\n")
        job = self.run(catalogue, "external_id,label,image\nP1,green tea,b.png\nP1,,c.png\n")
        assert [result for _, result in outcome(job)] == ["ok", "ok"]
        assert labels(catalogue) == ["green tea"] * 3

    def test_a_product_that_has_the_label_and_no_id_gets_it(self, catalogue):
        self.run(catalogue, "label,image\ntea,a.png\n")
        self.run(catalogue, "external_id,label,sku\nP1,tea,S\n")
        product = catalogue.products.get()
        assert (product.external_id, product.sku) == ("P1", "S")

    def test_only_the_first_id_is_given_to_it(self, catalogue):
        self.run(catalogue, "label,image\ntea,a.png\n")
        job = self.run(catalogue, "external_id,label,sku\nP1,tea,S\nP2,tea,T\nP1,,U\n")
        assert [result for _, result in outcome(job)] == ["ok", "error", "ok"]
        assert "already has a product “tea”" in reasons(job)[3]
        product = catalogue.products.get()
        assert (product.external_id, product.sku) == ("P1", "U")

    def test_what_contradicts_is_refused_alone(self, catalogue):
        self.run(catalogue, "external_id,label\nP1,tea\nP2,coffee\n")
        job = self.run(catalogue, "external_id,label,sku\nP2,tea,x\nP3,,x\nP1,,x\n,tea,y\n")
        assert [result for _, result in outcome(job)] == ["error", "error", "ok", "ok"]
        assert "already has a product “tea”" in reasons(job)[2]
        assert "needs a label" in reasons(job)[3]
        assert catalogue.products.get(external_id="P1").sku == "y"
        assert catalogue.products.get(external_id="P2").label == "coffee"

    def test_a_picture_with_an_id_replaces_the_one_that_has_it(self, catalogue):
        job = self.run(catalogue, "label,image,image_id\ntea,a.png,I\ntea,b.png,I\ntea,b.png,I\n")
        assert [result for _, result in outcome(job)] == ["ok", "ok", "duplicate"]
        assert "replaces" in reasons(job)[3]
        assert catalogue.images.get().number == 1


@pytest.mark.django_db
def test_every_field_of_a_product_has_a_column(catalogue):
    header = "label,names.en,names.zh-hans,sku,barcode,price,currency,description,category,active"
    row = "tea,Tea,茶,S1,4006381333931,1.50,eur,A drink,drinks / tea,yes"
    bad = "milk,,,,,2,,,,"
    job = imported(catalogue, io.BytesIO(f"{header}\n{row}\n{bad}\n".encode()), "list.csv")
    assert [result for _, result in outcome(job)] == ["ok", "error"]
    assert "currency" in reasons(job)[3]
    product = catalogue.products.get(label="tea")
    assert product.names == {"en": "Tea", "zh-Hans": "茶"}
    assert (product.sku, product.barcode, product.description) == ("S1", "4006381333931", "A drink")
    assert (str(product.price), product.currency, product.category) == (
        "1.5000",
        "EUR",
        "drinks/tea",
    )


texts = st.text(st.characters(codec="utf-8"), max_size=30)


@given(
    st.lists(st.lists(texts, max_size=6), max_size=8),
    st.sampled_from(",;\t"),
    st.binary(max_size=40),
)
@example([["label", "box"], ["tea", "9" * 400]], ",", b'"')
@example([["label", "attributes.a"], ["tea", "[" * 100_000]], ",", b"")
def test_no_csv_ever_crashes_the_reader(rows, delimiter, tail):
    data = b"label,image,box,attributes.a\n" + as_csv(rows, delimiter) + tail
    found: list[Line] = []
    try:
        found.extend(manifest.csv_lines(io.BytesIO(data), Nowhere()))
    except RecognitionError:
        return
    numbers = [line.number for line in found]
    assert numbers == sorted(set(numbers))


@given(st.binary(max_size=300))
def test_no_bytes_ever_crash_the_readers(data):
    for read in (manifest.csv_lines, manifest.xlsx_lines):
        try:
            list(read(io.BytesIO(data), Nowhere()))
        except RecognitionError as error:
            assert error.message


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=20), min_size=1))
def test_what_is_written_is_read(cells):
    data = as_csv([["label", "category"], *[["x" + cell.strip(), "c"] for cell in cells]])
    lines = list(manifest.csv_lines(io.BytesIO(data), Nowhere()))
    assert [line.label for line in lines] == [("x" + cell.strip()).strip() for cell in cells]


@pytest.mark.parametrize(
    ("cell", "value"),
    [
        ("330", 330),
        ("-1.5", -1.5),
        ("true", True),
        ("007", "007"),
        ("1e400", "1e400"),
        ("NaN", "NaN"),
        ("4006381333931", 4006381333931),
        ('{"a": 1}', '{"a": 1}'),
        ("red", "red"),
    ],
)
def test_attributes_are_typed_as_json_would(cell, value):
    assert columns.value(cell) == value and type(columns.value(cell)) is type(value)


@pytest.mark.parametrize("cell", ["1,2,3,4", "[1, 2, 3, 4]", "(1 2 3 4)", "1;2;3;4", "1.0,2,3,4"])
def test_boxes_in_every_usual_writing(cell):
    assert columns.box(cell) == [1, 2, 3, 4]
