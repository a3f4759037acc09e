"""Words of a caption as COCO's evaluation counts them: Penn Treebank tokens, lower case, no punctuation.

A rewrite in Python of what matters for captions of Stanford's PTBTokenizer (`-preserveLines -lowerCase`),
which needs Java. Clitics are split off, hyphenated words and abbreviations stay whole. User: caption_metrics.
"""

from __future__ import annotations

import re

_ABBREVIATIONS = (
    "mr mrs ms dr prof st jr sr vs etc inc ltd co corp dept ave blvd rd mt ft gen col lt sgt capt rev hon "
    "gov sen rep jan feb mar apr aug sept oct nov dec approx est e.g i.e"
)
_SHORT = "|".join(re.escape(word) for word in _ABBREVIATIONS.split())
_TOKEN = re.compile(
    r"(?:https?://|www\.)\S+"
    r"|[\w.+-]+@[\w-]+(?:\.[\w-]+)+"
    r"|(?:[^\W\d_]\.){2,}"
    rf"|(?:{_SHORT})\.(?=\s|$)"
    r"|\d+(?:[.,:]\d+)+"
    r"|\w+(?:['&-]\w+)*"
    r"|\.{2,}|-{2,}|[^\w\s]"
)
_CLITIC = re.compile(r"(.+?)(n't|'(?:s|m|d|re|ve|ll))")
_JOINED = {
    **{"cannot": ("can", "not"), "gonna": ("gon", "na"), "gotta": ("got", "ta"), "wanna": ("wan", "na")},
    **{"gimme": ("gim", "me"), "lemme": ("lem", "me")},
}
_PUNCTUATION = set("'\"`.?!,:;-(){}") | {"…", "–", "—", "“", "”", "„", "«", "»"}


def words(text: str) -> list[str]:
    """The tokens of a caption without punctuation."""
    found: list[str] = []
    for token in _TOKEN.findall(text.lower().replace("’", "'").replace("‘", "'")):
        if token[0] in _PUNCTUATION and set(token) <= _PUNCTUATION:
            continue
        clitic = _CLITIC.fullmatch(token)
        if clitic:
            found += clitic.groups()
        else:
            found += _JOINED.get(token, (token,))
    return found
