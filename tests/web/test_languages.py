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

from recognition import errors

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


def named(text: str) -> set[str]:
    return set(re.findall(r"%\(\w+\)[#0-9.+-]*[a-zA-Z]", text))


def unnamed(text: str) -> list[str]:
    return re.findall(r"%(?!\()[#0-9.+-]*[a-zA-Z]|\{\}", text.replace("%%", ""))


def calls_in(tree: ast.AST) -> Iterator[tuple[ast.Call, list[str], ast.expr | None]]:
    """Calls of a translation function, their texts, and what is put into those with `%`."""
    given = {
        node.left: node.right
        for node in ast.walk(tree)
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mod)
    }
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id in FUNCTIONS
        ):
            texts = node.args[: 2 if node.func.id.startswith("n") else 1]
            assert all(isinstance(one, ast.Constant) for one in texts), f"line {node.lineno}"
            yield node, [one.value for one in texts], given.get(node)  # type: ignore[attr-defined]


def sources() -> Iterator[tuple[Path, ast.Module]]:
    for path in ROOT.rglob("*.py"):
        yield path, ast.parse(path.read_text())


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
    """Named ones may change their places and come more than once, the others may not."""
    for text, translations in entries().items():
        for translation in translations:
            assert named(translation) == named(text), text
            assert unnamed(translation) == unnamed(text), text


def test_every_placeholder_is_given_and_nothing_else():
    """A name that a rarely run line gets wrong would be an error of its own."""
    for path, tree in sources():
        for call, texts, given in calls_in(tree):
            where = f"{path.name}:{call.lineno}"
            for text in texts:
                if named(text):
                    assert isinstance(given, ast.Dict), where
                    keys = [key.value for key in given.keys if isinstance(key, ast.Constant)]
                    assert len(keys) == len(given.keys) == len(set(keys)), where
                    assert {re.split(r"[()]", one)[1] for one in named(text)} == set(keys), where
                    assert not unnamed(text), where
                elif wanted := [one for one in unnamed(text) if one != "{}"]:
                    assert given is not None, where
                    parts = given.elts if isinstance(given, ast.Tuple) else [given]
                    assert len(parts) == len(wanted), where
                else:
                    assert given is None, where


def test_the_function_that_translates_keeps_its_name():
    """Where `_` is also what is thrown away, calling it would be an error."""
    for path, tree in sources():
        for function in ast.walk(tree):
            if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef)):
                used = [
                    type(node.ctx)
                    for node in ast.walk(function)
                    if isinstance(node, ast.Name) and node.id == "_"
                ]
                assert not {ast.Load, ast.Store} <= set(used), f"{path.name}: {function.name}"


# What commands and PaddleX's clients are told, and the index files and settings of either.
IN_ENGLISH = {
    "api/paddlex",
    "services/answering.py",
    "services/index_child.py",
    "services/index_files",
    "services/paddlex.py",
    "services/pipeline_config.py",
    "services/saved_indexes.py",
    "services/training_sets.py",
}
ASKED = {"web", "admin", "services", "api", "images.py", "fetch.py", "gallery_list.py"}
REFUSALS = {
    name
    for name, kind in vars(errors).items()
    if isinstance(kind, type) and issubclass(kind, errors.RecognitionError)
} - {"SetupError"}


def refusals_in(tree: ast.AST) -> Iterator[ast.expr]:
    """What errors, the lines of an import and their reasons are made of."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = getattr(node.func, "id", getattr(node.func, "attr", ""))
            if name in REFUSALS | {"_bad", "_refused", "_Unusable", "refuse"}:
                yield from node.args
            yield from (one.value for one in node.keywords if one.arg in ("problem", "note"))
        elif isinstance(node, ast.Assign) and "reason" in {
            getattr(one, "attr", "") for one in node.targets
        }:
            yield node.value


def test_every_refusal_of_a_request_or_in_a_job_is_translated():
    """Words are inside of a translation function; only names, values and signs stand bare."""
    asked = [
        (path, tree)
        for path, tree in sources()
        if ASKED & set(here := path.relative_to(ROOT).parts)
        and not IN_ENGLISH & {"/".join(here), "/".join(here[:-1])}
    ]
    assert len(asked) > 50
    for path, tree in asked:
        for said in refusals_in(tree):
            bare = {id(node) for node in ast.walk(said)}
            for inner, _texts, given in calls_in(said):
                bare -= {id(node) for node in ast.walk(inner)}
                bare -= {id(node) for node in ast.walk(given)} if given else set()
            for node in ast.walk(said):
                if not (isinstance(node, ast.Constant) and isinstance(node.value, str)):
                    continue
                if id(node) in bare:
                    words = re.sub(r"^\w+: ", "", node.value)  # the name of a field
                    assert not re.search(r"[A-Za-z]{2}", words), f"{path.name}:{said.lineno}"


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
