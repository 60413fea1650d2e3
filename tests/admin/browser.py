"""What a browser posts when somebody opens a page and presses the button: what the page has, and
nothing else."""

from __future__ import annotations

from html.parser import HTMLParser

_NOT_POSTED = {"submit", "button", "image", "reset", "file"}


class _Fields(HTMLParser):
    """Every form of a page: its id, and its fields as name and value."""

    def __init__(self) -> None:
        super().__init__()
        self.forms: list[tuple[str, list[tuple[str, str]]]] = []
        self._select: tuple[str, bool, list[tuple[str, bool]]] | None = None
        self._area: tuple[str, str] | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        name = given.get("name", "")
        if tag == "form":
            self.forms.append((given.get("id", ""), []))
        elif not self.forms or "disabled" in given:
            return
        elif tag == "input" and name and (kind := given.get("type", "text")) not in _NOT_POSTED:
            if kind not in ("checkbox", "radio"):
                self.forms[-1][1].append((name, given.get("value", "")))
            elif "checked" in given:
                self.forms[-1][1].append((name, given.get("value", "on")))
        elif tag == "select" and name:
            self._select = (name, "multiple" in given, [])
        elif tag == "option" and self._select:
            self._select[2].append((given.get("value", ""), "selected" in given))
        elif tag == "textarea" and name:
            self._area = (name, "")

    def handle_data(self, data: str) -> None:
        if self._area:
            self._area = (self._area[0], self._area[1] + data)

    def handle_endtag(self, tag: str) -> None:
        if tag == "select" and self._select:
            name, multiple, options = self._select
            chosen = [value for value, selected in options if selected]
            if not chosen and not multiple:
                chosen = [value for value, _selected in options[:1]]
            self.forms[-1][1].extend((name, value) for value in chosen)
            self._select = None
        elif tag == "textarea" and self._area:
            name, text = self._area
            self.forms[-1][1].append((name, text.removeprefix("\n")))
            self._area = None


def posted(page: str, form: str = "", *, with_field: str = "") -> dict[str, list[str]]:
    """Fields by name of the form whose id is `form`, or that has the field `with_field`."""
    parser = _Fields()
    parser.feed(page)
    for form_id, fields in parser.forms:
        names = [name for name, _value in fields]
        if (form and form_id == form) or (with_field and with_field in names):
            found: dict[str, list[str]] = {}
            for name, value in fields:
                found.setdefault(name, []).append(value)
            return found
    raise AssertionError(f"the page has no such form, only {[f for f, _ in parser.forms]}")
