"""A sign list as somebody wrote it, a language model perhaps: what is wrong with it, line by line; and what to ask."""

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import combinations
from typing import Literal

import yaml
from pydantic import ValidationError

from fed_fsad.data.signs import SignBook
from fed_fsad.names import suggestion

FEWEST, MOST = 4, 10
"""Signs per category between which a list is well filled (ours)."""
LONGEST = 10
"""Words beyond which a sign says more than one finding (ours)."""
ALIKE = 0.85
"""Share of equal letters from which two words are one (ours)."""
EMPTY = {"a", "an", "the", "of", "in", "on", "at", "with", "and", "is", "are", "its", "it", "this", "some", "very"}

DIAGNOSES = re.compile(
    r"(oedema|edema|\bmass|bleed|haemorrh|hemorrh|hydroceph|tumou?r|cancer|carcinom|malignan|gliom|meningiom|adenoma|"
    r"pneumo|effusion|consolidat|nodule|cardiomeg|exudate|glaucom|drusen|\bcyst|metasta|steatosis|infiltrat|lymphocyt|"
    r"necro|infarct|ischa?em|fractur|retinopath|disease|diagnos|lesion of|suggest|consistent with)\w*",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Remark:
    """One thing to say about a line. An error stops a run or spoils the method; a note only tells."""

    line: int
    severity: Literal["error", "warning", "note"]
    text: str


@dataclass(frozen=True)
class Line:
    """A sign where it stands: its task, its category ("normal" too), its line in the file."""

    task: str
    category: str
    sign: str
    line: int

    @property
    def words(self) -> list[str]:
        """Its words, less those that carry nothing, in the singular."""
        words = re.findall(r"\w+", self.sign.lower())
        return [word.removesuffix("s") for word in words if word not in EMPTY]


def remarks(
    text: str, task: str | None, wanted: Sequence[str], length: Callable[[str], int], limit: int
) -> list[Remark]:
    """Everything to say about the YAML `text`, by line.

    task, wanted: what the list must describe, as far as that is known. length: tokens of a text; limit: how many the
    model reads of one.
    """
    try:
        root = yaml.compose(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or "it cannot be read"
        return [Remark(mark.line + 1 if mark else 1, "error", f"not valid YAML ({problem}); remove what is no list")]
    found = [*_structure(text, root)]
    if any(remark.severity == "error" for remark in found):
        return sorted(found, key=lambda remark: remark.line)
    heads, lines = _read(root)
    found += _missing(heads, task, wanted)
    modality = {name: entry.modality for name, entry in SignBook.model_validate(yaml.safe_load(text)).tasks.items()}
    for line in lines:
        found += _wording(line)
        if (tokens := length(f"a {modality[line.task]} image showing {line.sign}")) > limit:
            too_long = f"{line.sign!r} is {tokens} tokens long and the model reads {limit}; shorten it"
            found.append(Remark(line.line, "error", too_long))
    for name in modality:
        found += _between([line for line in lines if line.task == name], heads)
    return sorted(found, key=lambda remark: remark.line)


def request(task: str, modality: str, categories: Sequence[str], count: int) -> str:
    """What to ask a language model for: signs of normal and of every category, as YAML that `remarks` can check."""
    listed = "\n".join(f"    {category}:\n      - ..." for category in categories)
    return f"""Write down what a person sees in a {modality} image: radiological signs, one short visual finding each.

Give {count} signs for a normal image and {count} for each of: {", ".join(categories)}.

* Describe only what is visible in one two-dimensional image: place, shape, size, margin, texture, brightness.
* Name no diagnosis and no disease, and do not repeat the category's own name.
* At most {LONGEST} words a sign, in lower case, no numbers, no full stop. It continues "a {modality} image showing".
* Where two categories share a finding, write the very same text under both. No two categories have all signs alike.
* No two texts in one list may say the same in other words.

Answer with this YAML and nothing else, the dots replaced:

{task}:
  modality: {modality}
  normal:
    - ...
  categories:
{listed}
"""


def _structure(text: str, root: yaml.Node | None) -> Iterator[Remark]:
    """What keeps the file from being a sign list, and signs that stand twice under one category."""
    try:
        SignBook.model_validate(yaml.safe_load(text))
    except ValidationError as error:
        for problem in error.errors():
            place = [step for step in problem["loc"] if not isinstance(step, int)]
            where = " > ".join(map(str, place)) or "the file"
            says = {"too_short": "has no signs; list at least one", "missing": "is missing; add it"}.get(
                problem["type"], problem["msg"].removeprefix("Value error, ")
            )
            line, node = _place(root, problem["loc"])
            if problem["type"] == "value_error" and isinstance(node, yaml.SequenceNode):
                line = _again(node)
            yield Remark(line, "error", f"{where}: {says}")


def _place(node: yaml.Node | None, steps: Sequence[int | str]) -> tuple[int, yaml.Node | None]:
    """What lies deepest on the way `steps`, and its line."""
    line = 1 if node is None else node.start_mark.line + 1
    for step in steps:
        if isinstance(node, yaml.MappingNode):
            pair = next(((key, value) for key, value in node.value if key.value == step), None)
            if pair is None:
                break
            line, node = pair[0].start_mark.line + 1, pair[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(step, int):
            node = node.value[step]
            line = node.start_mark.line + 1
    return line, node


def _again(signs: yaml.SequenceNode) -> int:
    """The line of the first sign that stands in its list for the second time."""
    met: set[str] = set()
    for sign in signs.value:
        if (text := str(sign.value).strip()) in met:
            return int(sign.start_mark.line) + 1
        met.add(text)
    return int(signs.start_mark.line) + 1


def _read(root: yaml.Node | None) -> tuple[dict[tuple[str, str], int], list[Line]]:
    """The line of every (task, category) heading, and every sign, of a file whose structure is right."""
    heads: dict[tuple[str, str], int] = {}
    lines: list[Line] = []
    for task, entry in [] if root is None else root.value:
        heads[task.value, ""] = task.start_mark.line + 1
        for key, value in entry.value:
            groups = {"normal": [(key, value)], "categories": value.value}.get(key.value, [])
            for name, signs in groups:
                heads[task.value, name.value] = name.start_mark.line + 1
                lines += [
                    Line(task.value, name.value, " ".join(sign.value.split()), sign.start_mark.line + 1)
                    for sign in signs.value
                ]
    return heads, lines


def _missing(heads: dict[tuple[str, str], int], task: str | None, wanted: Sequence[str]) -> Iterator[Remark]:
    tasks = [name for name, category in heads if not category]
    if task is not None and task not in tasks:
        yield Remark(1, "error", f"task {task!r} is not described; {suggestion(task, tasks)}")
    for name in tasks if task is None else [name for name in tasks if name == task]:
        own = [category for owner, category in heads if owner == name and category not in ("", "normal")]
        for category in wanted:
            if category not in own:
                yield Remark(heads[name, ""], "error", f"category {category!r} is missing; {suggestion(category, own)}")
        for category in own if wanted else ():
            if category not in wanted:
                yield Remark(heads[name, category], "warning", f"nobody asked for category {category!r}; leave it out")


def _wording(line: Line) -> Iterator[Remark]:
    own = line.category.replace("_", " ").lower()
    if found := DIAGNOSES.search(line.sign):
        yield Remark(line.line, "error", f"{found[0]!r} is a diagnosis; say what is seen instead")
    elif own != "normal" and own in line.sign.lower():
        yield Remark(line.line, "error", f"{own!r} is the category's own name; say what is seen instead")
    if (words := len(line.sign.split())) > LONGEST:
        yield Remark(line.line, "warning", f"{words} words are more than one finding; split or shorten it")


def _between(lines: Sequence[Line], heads: dict[tuple[str, str], int]) -> Iterator[Remark]:
    """What the signs of one task are to each other."""
    groups: defaultdict[str, list[Line]] = defaultdict(list)
    places: defaultdict[str, list[Line]] = defaultdict(list)
    for line in lines:
        groups[line.category].append(line)
        places[line.sign].append(line)
    for category, own in groups.items():
        if not FEWEST <= len(own) <= MOST:
            few = f"{category!r} has {len(own)} signs, too {'few' if len(own) < FEWEST else 'many'}"
            yield Remark(heads[own[0].task, category], "warning", f"{few}; {FEWEST} to {MOST} serve best")
    for one, other in combinations(groups, 2):
        if {line.sign for line in groups[one]} == {line.sign for line in groups[other]}:
            head = heads[groups[other][0].task, other]
            yield Remark(head, "error", f"{one!r} and {other!r} have the same signs; tell them apart")
    for sign, (first, *others) in places.items():
        for line in others:
            healthy = first.category == "normal"
            remedy = "; it cannot tell them apart" if healthy else ""
            text = f"{sign!r} is shared with {first.category!r} (line {first.line}){remedy}"
            yield Remark(line.line, "warning" if healthy else "note", text)
    for first, second in combinations([shared[0] for shared in places.values()], 2):
        if _nearly(first.words, second.words):
            text = f"nearly {first.sign!r} of line {first.line}; write both alike or tell them apart"
            yield Remark(second.line, "warning", text)


def _nearly(one: Sequence[str], other: Sequence[str]) -> bool:
    """The same words in whatever order, or word for word the same but for a few letters."""
    if sorted(one) == sorted(other):
        return True
    pairs = list(zip(one, other, strict=False))
    return len(one) == len(other) and all(SequenceMatcher(None, a, b).ratio() >= ALIKE for a, b in pairs)
