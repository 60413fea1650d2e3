"""Messages are English unless `Accept-Language` asks for Chinese; codes and fields stay."""

from __future__ import annotations

import pytest
from django.utils import translation

from recognition import fetch
from recognition.errors import FetchRefused
from recognition.models import Product

pytestmark = pytest.mark.django_db
CHINESE = {"Accept-Language": "zh-CN,zh;q=0.9"}


@pytest.mark.parametrize(
    ("headers", "message"),
    [
        ({}, "this catalogue already has a product “green tea”; merge the two, or choose another"),
        ({"Accept-Language": "de"}, "this catalogue already has a product “green tea”;"),
        (CHINESE, "此目录已有商品“green tea”；请合并两者，或换一个标签"),
    ],
)
def test_what_a_service_refuses(api, user, catalogue, headers, message):
    Product.objects.create(catalogue=catalogue, label="green tea")
    address = f"/api/v1/catalogues/{catalogue.key}/products"
    answer = api(user).post(address, {"label": "green tea"}, format="json", headers=headers)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (409, "conflict")
    assert error["message"].startswith(message)
    assert [error["message"]] == error["fields"]["label"]


@pytest.mark.parametrize(
    ("body", "english", "chinese"),
    [
        ({"label": "tea", "labbel": "x"}, "no such field; there are", "没有此字段；可用的有"),
        ({}, "This field is required.", "该字段是必填项。"),  # the framework's own words
    ],
)
def test_what_the_api_itself_refuses(api, user, catalogue, body, english, chinese):
    address = f"/api/v1/catalogues/{catalogue.key}/products"
    for headers, words in (({}, english), (CHINESE, chinese)):
        answer = api(user).post(address, body, format="json", headers=headers)
        [messages] = answer.json()["error"]["fields"].values()
        assert messages[0].startswith(words)


def test_what_is_nowhere(api, user):
    for headers, words in (({}, "nothing has this address"), (CHINESE, "此地址没有任何内容")):
        answer = api(user).get("/api/v1/nowhere", headers=headers)
        assert answer.json()["error"]["message"].startswith(words)


def test_a_coroutine_knows_the_language():
    """`fetch` runs in a loop of its own, inside of the request."""
    with translation.override("zh-hans"), pytest.raises(FetchRefused) as refused:
        fetch.fetch_picture("http://127.0.0.1/tea.jpg")
    assert refused.value.message == (
        "未获取该 URL：主机 '127.0.0.1' 没有公共互联网上的地址。请改为直接发送图片。"
    )
