"""What is refused is said in the language of the screen."""

from __future__ import annotations

import pytest
from django.conf import settings as site
from django.core.files.uploadedfile import SimpleUploadedFile
from django.urls import reverse

from recognition.models import Match, Product, State
from recognition.services import products, trash
from tests import factories

PRODUCTS = "admin:recognition_product"
IMAGES = "admin:recognition_galleryimage"
MEMBERS = "admin:recognition_membership"
JOBS = "admin:recognition_job"


@pytest.fixture
def staff(staff):
    """A superuser's browser, in Chinese."""
    staff.cookies.load({site.LANGUAGE_COOKIE_NAME: "zh-hans"})
    return staff


def act(staff, kind: str, action: str, row, **more) -> str:
    form = {"action": action, "_selected_action": [row.pk]} | more
    return staff.post(reverse(f"{kind}_changelist"), form, follow=True).content.decode()


def test_a_torn_picture_at_its_field(staff, rows):
    file = SimpleUploadedFile("tea.png", factories.png(1)[:99])
    form = {"product": rows.product.pk, "file": file, "box": ""}
    response = staff.post(reverse(f"{IMAGES}_add"), form)
    [message] = response.context["adminform"].form.errors["file"]
    assert message == "图片 'tea.png'：已损坏或不完整，无法解码。请重新发送该文件。"


def test_a_conflict_at_its_field(staff, rows):
    file = SimpleUploadedFile("tea.png", factories.png(1), "image/png")
    form = {"product": rows.product.pk, "file": file, "box": ""}
    response = staff.post(reverse(f"{IMAGES}_add"), form)
    [message] = response.context["adminform"].form.errors["file"]
    assert message.startswith("“green tea”已有这张图片：#0")


def test_the_last_manager(staff, rows):
    address = reverse(f"{MEMBERS}_change", args=[rows.membership.pk])
    response = staff.post(address, {"role": "viewer"})
    [message] = response.context["adminform"].form.errors["role"]
    assert message == f"{rows.user} 是最后一位管理员；请先将其他人设为管理员"
    gone = staff.post(
        reverse(f"{MEMBERS}_delete", args=[rows.membership.pk]), {"post": "yes"}, follow=True
    )
    assert "是最后一位管理员" in gone.content.decode()


def test_an_action_on_several(staff, rows):
    trash.put(rows.catalogue, [rows.product])
    products.create(rows.catalogue, "green tea")
    address = reverse(f"{PRODUCTS}_changelist") + "?place=trash"
    form = {"action": "restore", "_selected_action": [rows.product.pk]}
    text = staff.post(address, form, follow=True).content.decode()
    assert "现在已有另一个商品使用标签“green tea”；请以其他标签恢复" in text
    assert Product.everything.in_trash().count() == 1


@pytest.mark.parametrize(
    ("label", "words"),
    [
        ("no such tea", "此目录没有商品“no such tea”"),
        ("x" * 256, "不超过 255 字符"),
        ("a\x07b", "其中含有控制字符 U+0007"),
    ],
)
def test_the_question_of_an_action(staff, rows, label, words):
    assert words in act(staff, IMAGES, "move", rows.galleryimage, chosen=label)


def test_a_dialog(staff, rows):
    Match.objects.all().delete()
    address = reverse(
        "admin:recognition_recognitionquery_give_feedback", args=[rows.recognitionquery.pk]
    )
    form = {"_form_submitted": "on", "position": "0", "verdict": "confirmed"}
    assert "没有为此区域给出建议，因此无可确认" in staff.post(address, form).content.decode()


def test_a_job_that_ended_already(staff, rows):
    factories.ended(rows.job, State.DONE)
    assert f"{rows.job.key}: 任务已经结束" in act(staff, JOBS, "cancel", rows.job)
