"""English and Simplified Chinese, each complete."""

from __future__ import annotations

import ast
import gettext
import io
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.urls import reverse
from django.utils.translation.template import templatize

ROOT = Path(__file__).resolve().parents[2] / "recognition"
CATALOGUE = ROOT / "locale" / "zh_Hans" / "LC_MESSAGES" / "django.po"
FUNCTIONS = {"_", "gettext", "gettext_lazy", "ngettext", "ngettext_lazy", "pgettext"}


def marked_in(source: str) -> Iterator[str]:
    """Strings handed to a translation function in Python source; the singular of plurals."""
    for node in ast.walk(ast.parse(source)):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id in FUNCTIONS
            and node.args
            and isinstance(node.args[0], ast.Constant)
        ):
            yield node.args[0].value


def marked_in_template(source: str) -> Iterator[str]:
    """The same of a template: Django turns its tags into calls that look like Python."""
    for call in re.finditer(
        r"n?gettext\(\s*(u?(?:'''|\"\"\"|'|\").*?(?:'''|\"\"\"|'|\"))\s*[,)]",
        templatize(source),
        re.S,
    ):
        yield ast.literal_eval(call[1])


def marked() -> set[str]:
    python = (marked_in(path.read_text()) for path in ROOT.rglob("*.py"))
    templates = (marked_in_template(p.read_text()) for p in (ROOT / "templates").rglob("*.html"))
    return {text for source in (*python, *templates) for text in source}


@pytest.fixture(scope="module")
def chinese() -> gettext.GNUTranslations:
    with CATALOGUE.with_suffix(".mo").open("rb") as compiled:
        return gettext.GNUTranslations(compiled)


def entries() -> dict[str, list[str]]:
    """msgid -> msgstrs of the readable catalogue."""
    blocks = re.split(r"\n\s*\n", CATALOGUE.read_text(encoding="utf-8"))[1:]
    found = {}
    for block in blocks:
        if block.lstrip().startswith("#~"):
            continue
        parts: dict[str, str] = {}
        for line in io.StringIO(block):
            if head := re.match(r'(msgid|msgid_plural|msgstr(?:\[\d\])?) (".*")', line):
                name = head[1]
                parts[name] = ast.literal_eval(head[2])
            elif line.startswith('"'):
                parts[name] += ast.literal_eval(line.strip())
        found[parts["msgid"]] = [text for name, text in parts.items() if name.startswith("msgstr")]
    return found


def test_every_marked_string_is_translated(chinese):
    catalogue = chinese._catalog
    known = {key[0] if isinstance(key, tuple) else key for key in catalogue}
    assert len(marked()) > 100
    assert marked() - known == set()


def test_no_translation_is_empty_or_doubtful():
    assert [text for text, translations in entries().items() if not all(translations)] == []
    assert "fuzzy" not in CATALOGUE.read_text(encoding="utf-8")


def test_the_compiled_catalogue_is_the_readable_one(chinese):
    for text, translations in entries().items():
        assert chinese._catalog.get(text, chinese._catalog.get((text, 0))) == translations[0]


def test_placeholders_are_kept():
    for text, translations in entries().items():
        names = set(re.findall(r"%\(\w+\)[sd]", text))
        assert all(set(re.findall(r"%\(\w+\)[sd]", t)) == names for t in translations), text


def test_no_visible_text_of_a_template_escapes_translation():
    """Text nodes of the templates hold no words outside the translation tags."""
    for path in (ROOT / "templates").rglob("*.html"):
        source = path.read_text()
        source = re.sub(r"{% blocktranslate.*?{% endblocktranslate %}", "", source, flags=re.S)
        source = re.sub(r"{% block width %}\w+{% endblock %}", "", source)
        source = re.sub(r"<(code|script|style)\b.*?</\1>", "", source, flags=re.S)
        source = re.sub(r'<span class="material-symbols-outlined".*?</span>', "", source)  # icons
        source = re.sub(r"{%.*?%}|{{.*?}}|{#.*?#}", "", source, flags=re.S)
        words = re.findall(r"[A-Za-z]{2,}", re.sub(r"<[^>]*>", " ", source))
        assert set(words) <= {"ms"}, f"{path.name}: {words}"


def test_the_switch_in_the_footer_changes_the_language(member, catalogue):
    address = reverse("home")
    assert "My catalogues" in member.get(address).content.decode()
    response = member.post(reverse("set_language"), {"language": "zh-hans", "next": address})
    assert response["Location"] == address
    page = member.get(address).content.decode()
    assert '<html lang="zh-hans">' in page
    assert "我的目录" in page
    assert "My catalogues" not in page


def test_a_browser_that_prefers_chinese_gets_it(client, db):
    page = client.get(reverse("login"), headers={"Accept-Language": "zh-CN,zh;q=0.9"})
    assert "登录" in page.content.decode()


def test_the_answer_speaks_chinese(member, answered):
    member.post(reverse("set_language"), {"language": "zh-hans"})
    page = member.get(reverse("recognition", args=[answered.key])).content.decode()
    assert "找到 1 个物体" in page
    assert "匹配" in page


def test_the_language_never_leads_elsewhere(member):
    response = member.post(
        reverse("set_language"), {"language": "en", "next": "https://evil.example/"}
    )
    assert response["Location"] == "/"
