from pathlib import Path

from open_clip.tokenizer import SimpleTokenizer

from pretraining.tokenizer import learn_merges, write_merges


def test_merges_follow_the_counts_by_hand() -> None:
    # "ab" ends 5 words and begins 2 more; then "ab</w>" is whole, and "ab" + "c" is left.
    texts = ["ab ab ab", "ab, ab", "abc abc"]
    # pairs at first: (a, b</w>) 5, (a, b) 2, (b, c</w>) 2
    assert learn_merges(texts, 10) == [("a", "b</w>"), ("a", "b"), ("ab", "c</w>")]
    assert learn_merges(texts, 1) == [("a", "b</w>")]


def test_pairs_that_occur_once_are_not_merged() -> None:
    assert learn_merges(["xy zw"], 10) == []


def test_overlapping_pairs_merge_from_the_left() -> None:
    assert learn_merges(["aaaa aaaa"], 1) == [("a", "a")]
    # a a a a</w>: (a, a) occurs twice a word, (a, a</w>) once; after merging: aa a a</w>
    assert learn_merges(["aaaa aaaa"], 2)[1] in {("a", "a</w>"), ("aa", "a")}


def test_open_clip_reads_the_file_and_uses_every_merge(tmp_path: Path) -> None:
    texts = ["a round outline, a sharp margin", "a round bright rim", "X-ray of 12 µm, naïve"]
    merges = learn_merges(texts * 2, 500)
    write_merges(merges, tmp_path / "merges.gz")
    tokenizer = SimpleTokenizer(bpe_path=str(tmp_path / "merges.gz"), context_length=40)
    assert tokenizer.vocab_size == 512 + len(merges) + 2
    assert tokenizer.eot_token_id == tokenizer.vocab_size - 1
    assert list(tokenizer.bpe_ranks) == merges
    words = ["a", "round", "outline", ",", "a", "sharp", "margin"]
    assert len(tokenizer.encode(texts[0])) == len(words), "every word of a learned text is one token"
    for text in texts:
        assert tokenizer.decode(tokenizer.encode(text)).replace(" ", "") == text.lower().replace(" ", "")


def test_equal_merges_give_equal_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_merges([("a", "b</w>"), ("c", "d")], tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
