"""Byte-pair merges learned from captions and signs, in the file format open_clip's SimpleTokenizer reads."""

import gzip
import re
from collections import Counter
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

from open_clip.tokenizer import bytes_to_unicode

HEADING = "# byte-pair merges of fed_fsad's embedded CLIP, one pair a line"
WORDS = re.compile(r"[^\W\d_]+|\d|(?:[^\w\s]|_)+")
"""How the tokenizer cuts a lower-case text before it merges; numbers go digit by digit."""

Word = tuple[str, ...]
Pair = tuple[str, str]


def learn_merges(texts: Iterable[str], most: int) -> list[Pair]:
    """At most `most` merges, always the most frequent pair next (Sennrich et al. 2016); ties to the smaller pair.

    Stops early when no pair occurs twice.
    """
    letters = bytes_to_unicode()
    counts = Counter(word for text in texts for word in WORDS.findall(text.lower()))
    words: dict[Word, int] = {}
    for word, count in counts.items():
        symbols = [letters[byte] for byte in word.encode()]
        words[(*symbols[:-1], symbols[-1] + "</w>")] = count
    merges: list[Pair] = []
    while len(merges) < most:
        pairs: Counter[Pair] = Counter()
        for symbols_, count in words.items():
            for pair in pairwise(symbols_):
                pairs[pair] += count
        best = min(pairs, key=lambda pair: (-pairs[pair], pair), default=None)
        if best is None or pairs[best] < 2:
            break
        merges.append(best)
        words = {_merged(word, best): count for word, count in words.items()}
    return merges


def write_merges(merges: Iterable[Pair], path: Path) -> None:
    """The gzip file of the merges, byte for byte the same for the same merges."""
    lines = [HEADING, *(" ".join(pair) for pair in merges)]
    path.write_bytes(gzip.compress("\n".join(lines).encode(), mtime=0))


def _merged(word: Word, pair: Pair) -> Word:
    symbols: list[str] = []
    for symbol in word:
        if symbols and (symbols[-1], symbol) == pair:
            symbols[-1] += symbol
        else:
            symbols.append(symbol)
    return tuple(symbols)
