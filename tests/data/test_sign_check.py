"""What is said of a sign list, line by line, and what a language model is asked for."""

from collections.abc import Sequence

import pytest
import yaml

from fed_fsad.data.sign_check import remarks, request
from fed_fsad.data.signs import SignBook

GOOD = """\
skin:
  modality: skin photograph
  normal:
    - even colour
    - a smooth surface
    - fine lines in all directions
    - no separate spot
  categories:
    mole:
      - a single dark spot
      - a sharp border
      - a round outline
      - one colour throughout
    rash:
      - many small red spots
      - a sharp border
      - red skin between the spots
      - a rough surface
"""


def said(text: str, task: str | None = None, wanted: Sequence[str] = (), limit: int = 99) -> list[str]:
    found = remarks(text, task, wanted, lambda sign: len(sign.split()), limit)
    return [f"{remark.line} {remark.severity}: {remark.text}" for remark in found]


def with_line(number: int, content: str) -> str:
    lines = GOOD.splitlines()
    lines[number - 1] = content
    return "\n".join(lines) + "\n"


SHARED = "16 note: 'a sharp border' is shared with 'mole' (line 11)"


def test_a_good_list_gets_only_notes_on_what_is_shared() -> None:
    assert said(GOOD, "skin", ["mole", "rash"]) == [SHARED]


@pytest.mark.parametrize(
    ("line", "content", "remark"),
    [
        (
            12,
            "      - a single dark spot",
            "12 error: skin > categories > mole: sign 'a single dark spot' appears twice",
        ),
        (
            12,
            "      - an outline like a melanoma tumour",
            "12 error: 'tumour' is a diagnosis; say what is seen instead",
        ),
        (12, "      - the look of a Mole", "12 error: 'mole' is the category's own name; say what is seen instead"),
        (
            12,
            "      - one two three four five six seven eight nine ten eleven",
            "12 warning: 11 words are more than one",
        ),
        (12, "      - the dark single spots", "12 warning: nearly 'a single dark spot' of line 10; write both alike"),
        (17, "      - many small redd spots", "17 warning: nearly 'many small red spots' of line 15; write both alike"),
        (
            12,
            "      - even colour",
            "12 warning: 'even colour' is shared with 'normal' (line 4); it cannot tell them apart",
        ),
        (12, "      - ", "12 error: skin > categories > mole: Input should be a valid string"),
        (2, "  modus: photo", "2 error: skin > modus: Extra inputs are not permitted"),
        (2, "  # no modality", "1 error: skin > modality: is missing; add it"),
        (3, "```", "3 error: not valid YAML"),
    ],
)
def test_what_is_wrong_is_said_of_its_line(line: int, content: str, remark: str) -> None:
    assert any(found.startswith(remark) for found in said(with_line(line, content))), said(with_line(line, content))


def test_opposite_words_are_no_near_duplicates() -> None:
    text = with_line(12, "      - darker than its surroundings").replace(
        "one colour throughout", "brighter than its surroundings"
    )
    assert said(text) == [SHARED]


def test_a_sign_that_is_too_long_for_the_model_is_named_with_its_tokens() -> None:
    long = [line for line in said(GOOD, limit=9) if "tokens long" in line]
    # "a skin photograph image showing" are 5 words and the longest sign has 5
    says = "is 10 tokens long and the model reads 9; shorten it"
    assert long == [f"6 error: 'fine lines in all directions' {says}", f"17 error: 'red skin between the spots' {says}"]


def test_too_few_and_too_many_signs() -> None:
    few = GOOD.replace("      - one colour throughout\n", "")
    assert "9 warning: 'mole' has 3 signs, too few; 4 to 10 serve best" in said(few)
    many = GOOD + "".join(
        f"      - patch {letter}\n" for letter in ("alpha", "beta", "gamma", "delta", "kappa", "pi", "xi")
    )
    assert "14 warning: 'rash' has 11 signs, too many; 4 to 10 serve best" in said(many)


def test_missing_and_unasked_categories_are_named_with_the_nearest() -> None:
    found = said(GOOD, "skin", ["moles", "rash"])
    assert "1 error: category 'moles' is missing; did you mean 'mole'?" in found
    assert "9 warning: nobody asked for category 'mole'; leave it out" in found
    assert "1 error: task 'skim' is not described; did you mean 'skin'?" in said(GOOD, "skim")


def test_categories_with_the_same_signs_cannot_be_told_apart() -> None:
    content = yaml.safe_load(GOOD)
    content["skin"]["categories"]["rash"] = content["skin"]["categories"]["mole"][::-1]
    text = yaml.safe_dump(content, sort_keys=False)
    line = text.splitlines().index("    rash:") + 1
    assert f"{line} error: 'mole' and 'rash' have the same signs; tell them apart" in said(text)


@pytest.mark.parametrize("text", ["", "- a\n", "just words\n", "skin: [a, b]\n", "skin:\n  normal: {}\n"])
def test_what_is_no_list_at_all_is_said_and_never_raised(text: str) -> None:
    assert any(" error: " in line for line in said(text))


def test_the_request_holds_a_form_that_is_a_sign_list() -> None:
    text = request("skin", "skin photograph", ["mole", "rash"], 8)
    form = text[text.index("skin:\n") :].replace("- ...", "- a dark spot")
    book = SignBook.model_validate(yaml.safe_load(form))
    assert list(book["skin"].categories) == ["mole", "rash"]
    assert 'It continues "a skin photograph image showing"' in text
    assert "8 signs for a normal image and 8 for each of: mole, rash" in text
