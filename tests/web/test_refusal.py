"""What is refused is said in the language of the page."""

from __future__ import annotations

import pytest
from django.conf import settings as site
from django.core.files.uploadedfile import SimpleUploadedFile
from django.urls import reverse

from recognition.models import Role
from recognition.services import quotas
from tests import factories
from tests.web.conftest import HTMX, upload

pytestmark = pytest.mark.django_db


def speak(client, language: str = "zh-hans"):
    client.cookies.load({site.LANGUAGE_COOKIE_NAME: language})
    return client


@pytest.fixture
def member(member):
    """The browser of the catalogue's owner, in Chinese."""
    return speak(member)


@pytest.fixture
def page(catalogue) -> str:
    return reverse("recognise", args=[catalogue.key])


PICTURES = {
    "torn": (factories.png(1)[:120], "图片 'shelf.png'：已损坏或不完整，无法解码。"),
    "tiny": (factories.png(1, (4, 4)), "为 4 x 4 像素；每边至少需要 8 像素。"),
    "no picture": (b"<html></html>", "内容是文本（SVG、HTML 或 XML），不是像素图片。请以 JPEG"),
}


@pytest.mark.parametrize("case", PICTURES)
@pytest.mark.parametrize("headers", [{}, HTMX], ids=["plain", "htmx"])
def test_a_picture_that_is_none(member, catalogue, page, case, headers):
    data, words = PICTURES[case]
    form = {"catalogue": catalogue.key, "picture": upload(data)}
    response = member.post(page, form, headers=headers)
    assert response.status_code == 422
    assert response.context["form"].errors["picture"][0].count(words) == 1


@pytest.mark.parametrize("headers", [{}, HTMX], ids=["plain", "htmx"])
def test_a_picture_too_large(member, catalogue, page, settings, headers):
    settings.SHITU_MAX_IMAGE_PIXELS = 1000
    form = {"catalogue": catalogue.key, "picture": upload(name="货架.png")}
    said = member.post(page, form, headers=headers).context["form"].errors["picture"]
    assert said == [
        "图片 '货架.png'：为 64 x 48 像素；总共最多接受 1,000 像素（SHITU_MAX_IMAGE_PIXELS）。"
        "请缩小后发送。"
    ]


def test_an_option_out_of_range(member, catalogue, page):
    form = {"catalogue": catalogue.key, "picture": upload(), "rec_threshold": "99"}
    text = member.post(page, form, headers=HTMX).content.decode()
    assert "rec_threshold 必须在 -1..1（IP、余弦）或 0..4（L2）之间" in text


def test_a_full_queue(member, catalogue, page, waiting, settings):
    settings.SHITU_MAX_WAITING_QUERIES = 1
    form = {"catalogue": catalogue.key, "picture": upload()}
    text = member.post(page, form, headers=HTMX).content.decode()
    assert "已有 1 个问题在等待回答（SHITU_MAX_WAITING_QUERIES）；请稍后再试" in text


def test_a_quota(member, catalogue):
    quotas.change(catalogue, concurrent_jobs=1)
    address = reverse("transfer", args=[catalogue.key])
    assert member.post(address, {"export": "1"}).status_code == 302
    text = member.post(address, {"export": "1"}).content.decode()
    assert f"目录“{catalogue.name}”最多可同时有 1 个未完成的任务，现有 1 个" in text


def test_an_import_too_large(member, catalogue, settings):
    settings.SHITU_MAX_IMPORT_BYTES = 1234
    file = SimpleUploadedFile("teas.csv", b"x" * 1235)
    text = member.post(reverse("transfer", args=[catalogue.key]), {"file": file}).content.decode()
    assert "文件超过 1,234 字节（SHITU_MAX_IMPORT_BYTES）。" in text


def test_a_role_too_low(browser, catalogue):
    ben = speak(browser(factories.member(catalogue, Role.VIEWER)))
    response = ben.get(reverse("transfer", args=[catalogue.key]))
    assert response.status_code == 403
    assert f"此操作需要在目录“{catalogue.name}”中具有“编辑”角色" in response.content.decode()


def test_the_other_language_is_not_left_behind(member, catalogue, page):
    form = {"catalogue": catalogue.key, "picture": upload(b"<html></html>")}
    assert "内容是文本" in member.post(page, form).content.decode()
    form["picture"] = upload(b"<html></html>")
    assert "is text (SVG, HTML or XML)" in speak(member, "en").post(page, form).content.decode()
