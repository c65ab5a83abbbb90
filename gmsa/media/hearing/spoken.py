"""How written English is spoken: numbers and signs as words, and words that no dictionary has as phones."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

_ONES = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"),
    *("thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"),
)
_TENS = ("", "", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_GROUPS = {10**12: "trillion", 10**9: "billion", 10**6: "million", 1000: "thousand", 100: "hundred"}
_ORDINALS = {
    "one": "first",
    "two": "second",
    "three": "third",
    "five": "fifth",
    "eight": "eighth",
    "nine": "ninth",
    "twelve": "twelfth",
}
_SIGNS = {"%": "percent", "&": "and", "+": "plus", "=": "equals", "@": "at", "#": "number", "°": "degrees"}
_COINS = {"$": "dollars", "€": "euros", "£": "pounds"}
_MOST = 10**15
_PARTS = re.compile(r"([$€£]?)(\d+(?:,\d{3})+|\d+)(?:\.(\d+))?(st|nd|rd|th)?|([^\W\d_]+(?:'[^\W\d_]+)*)|(\S)")


def spoken(text: str) -> list[str]:
    """Returns the lower-case words that are spoken for a written one; none for punctuation.

    >>> spoken("well-known"), spoken("1999"), spoken("21st"), spoken("--")
    (['well', 'known'], ['nineteen', 'ninety', 'nine'], ['twenty', 'first'], [])
    >>> spoken("$2.50")
    ['two', 'point', 'five', 'zero', 'dollars']
    """
    found: list[str] = []
    for coin, digits, fraction, ordinal, letters, sign in _PARTS.findall(_plain(text)):
        if digits:
            found += _year(digits) if not (coin or fraction or ordinal) else cardinal(int(digits.replace(",", "")))
            if fraction:
                found += ["point", *(_ONES[int(d)] for d in fraction)]
            if ordinal:
                last = found[-1]
                found[-1] = _ORDINALS.get(last) or (f"{last[:-1]}ieth" if last.endswith("y") else f"{last}th")
            found += [_COINS[coin]] if coin else []
        elif letters:
            found.append(letters.lower())
        elif sign in _SIGNS:
            found.append(_SIGNS[sign])
    return found


def cardinal(number: int) -> list[str]:
    """Returns a number of at least 0 in words; one of more than 15 digits is read digit by digit.

    >>> cardinal(1045)
    ['one', 'thousand', 'forty', 'five']
    """
    if number >= _MOST:
        return [_ONES[int(digit)] for digit in str(number)]
    return list(_cardinal(number)) or ["zero"]


def _cardinal(number: int) -> Iterator[str]:
    for size, name in _GROUPS.items():
        if number >= size:
            yield from (*_cardinal(number // size), name)
            number %= size
    if number >= 20:
        yield _TENS[number // 10]
        number %= 10
    if number:
        yield _ONES[number]


def _year(digits: str) -> list[str]:
    """A whole number in words; one that may be a year of the second millennium in two parts."""
    if re.fullmatch(r"1[1-9]\d\d", digits):
        century, rest = divmod(int(digits), 100)
        return [*cardinal(century), *(["hundred"] if not rest else ["o"] if rest < 10 else []), *_cardinal(rest)]
    if len(digits) > 1 and digits[0] == "0":
        return [_ONES[int(digit)] for digit in digits]
    return cardinal(int(digits.replace(",", "")))


def _plain(text: str) -> str:
    """Without accents, and with straight apostrophes."""
    parts = unicodedata.normalize("NFKD", text.replace("’", "'").replace("‘", "'"))
    return "".join(c for c in parts if not unicodedata.combining(c))


_TABLE = """
tion:SH AH N, sion:ZH AH N, ough:AO, augh:AO, igh:AY, tch:CH, sch:SH, ch:CH, sh:SH, th:TH, ph:F, wh:W, gh:G,
ck:K, ng:NG, qu:K W, ce:S EH, ci:S IH, cy:S IY, ee:IY, ea:IY, oo:UW, ou:AW, ow:OW, oi:OY, oy:OY, ai:EY, ay:EY,
ei:EY, ey:IY, ie:IY, au:AO, aw:AO, ar:AA R, er:ER, ir:ER, ur:ER, or:AO R, a:AE, b:B, c:K, d:D, e:EH, f:F, g:G,
h:HH, i:IH, j:JH, k:K, l:L, m:M, n:N, o:AA, p:P, q:K, r:R, s:S, t:T, u:AH, v:V, w:W, x:K S, y:IY, z:Z
"""
_SOUNDS = {"'": ""} | dict(pair.strip().split(":") for pair in _TABLE.split(","))
"""Phones of runs of letters."""


def phones(word: str) -> str:
    """Returns the phones of a word by its letters, as CMUdict writes them; empty if it has other letters than English.

    Good enough to find where a word is, not to say it: the longest known run of letters first.

    >>> phones("blorx"), phones("grishtion"), phones("日本")
    ('B L AO R K S', 'G R IH SH SH AH N', '')
    """
    letters = re.sub(r"([b-df-hj-np-tv-z])\1", r"\1", word)
    if len(letters) > 3 and letters.endswith("e") and not letters.endswith(("ee", "ie")):
        letters = letters[:-1]  # silent
    found, at = [], 0
    while at < len(letters):
        run = next((letters[at : at + n] for n in (4, 3, 2, 1) if letters[at : at + n] in _SOUNDS), None)
        if run is None:
            return ""
        found.append(_SOUNDS[run])
        at += len(run)
    return " ".join(filter(None, found))
