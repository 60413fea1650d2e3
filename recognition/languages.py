"""BCP 47 language tags: which are well-formed, and which of several somebody wants to read."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable

_TAG = re.compile(
    r"""
    (?: [a-z]{2,3} (?:-[a-z]{3}){0,3} | [a-z]{4,8} )        # language
    (?: -[a-z]{4} )?                                        # script
    (?: -(?:[a-z]{2}|[0-9]{3}) )?                           # region
    (?: -(?:[a-z0-9]{5,8}|[0-9][a-z0-9]{3}) )*              # variants
    (?: -[0-9a-wy-z] (?:-[a-z0-9]{2,8})+ )*                 # extensions
    (?: -x (?:-[a-z0-9]{1,8})+ )?                           # private use
    """,
    re.VERBOSE | re.IGNORECASE | re.ASCII,
)


# By region, as CLDR's likely subtags have it.
_CHINESE_SCRIPTS = {
    "cn": "hans",
    "sg": "hans",
    "my": "hans",
    "tw": "hant",
    "hk": "hant",
    "mo": "hant",
}


def canonical(tag: str) -> str | None:
    """The tag as RFC 5646 writes it (`zh-Hant-TW`); None when it is not well-formed."""
    if len(tag) > 35 or not _TAG.fullmatch(tag):
        return None
    language, *rest = tag.lower().split("-")
    parts, after_single = [language], False
    for part in rest:
        after_single = after_single or len(part) == 1
        if not after_single and len(part) == 4 and part.isalpha():
            part = part.title()
        elif not after_single and len(part) == 2:
            part = part.upper()
        parts.append(part)
    return "-".join(parts)


def _with_script(tag: str) -> str:
    """In lower case, and with the script that a Chinese tag with a region only means."""
    language, _, rest = tag.lower().partition("-")
    script = _CHINESE_SCRIPTS.get(rest.partition("-")[0]) if language == "zh" else None
    return f"{language}-{script}-{rest}" if script else tag.lower()


def best(wanted: Iterable[str], there: Collection[str]) -> str | None:
    """The tag of `there` that suits best, `wanted` being in order of preference; None: none does.

    Look-up of RFC 4647 (`zh-Hant-TW`, then `zh-Hant`, then `zh`), and where that finds nothing a
    more special tag of the language that is wanted (`zh-Hans` for `zh`). Chinese is read in the
    script of its region, which most browsers leave out: `zh-CN` is `zh-Hans-CN`.
    """
    by_lower = {_with_script(tag): tag for tag in sorted(there, reverse=True)}
    for tag in wanted:
        asked = full = _with_script(tag)
        while asked:
            if asked in by_lower:
                return by_lower[asked]
            asked = asked.rpartition("-")[0]
            if len(asked) > 1 and asked[-2] == "-":  # a singleton says nothing by itself
                asked = asked[:-2]
        special = [lower for lower in by_lower if lower.startswith(f"{full}-")]
        if special:
            return by_lower[min(special)]
    return None
