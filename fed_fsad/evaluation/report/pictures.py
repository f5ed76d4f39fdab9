"""The gallery: test images with mask, map and the signs that spoke; and the signs of every category."""

import base64
from dataclasses import dataclass
from pathlib import Path

from fed_fsad.evaluation.report.load import Run
from fed_fsad.evaluation.report.records import Evidence, GalleryItem, Sign
from fed_fsad.evaluation.report.sheet import Sheet, sheet
from fed_fsad.evaluation.report.words import method_title, percent, plain

LIKENESS = "likeness to the supports (added)"
_PNG = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class Picture:
    """One test image with its mask and its map, as data: addresses; None where a picture is missing."""

    item: GalleryItem
    image: str | None
    mask: str | None
    map: str | None

    @property
    def truth(self) -> str:
        """What the image shows."""
        return ", ".join(map(plain, self.item.categories)) or ("abnormal" if self.item.label else "normal")

    @property
    def kind(self) -> str:
        """Why it is shown here."""
        words = {"best": "highest score", "median": "middle score", "worst": "lowest score"}
        return words.get(self.item.kind, plain(self.item.kind))

    @property
    def score(self) -> str:
        """Its image score; scores of a method have no unit, so four digits."""
        return f"{self.item.score:.4g}".replace("-", "−")

    @property
    def reasons(self) -> tuple["Reason", ...]:
        """Why its categories got their scores, on one scale."""
        longest = max((abs(value) for why in self.item.evidence for _, value in _spoken(why)), default=0) or 1.0
        return tuple(_reason(why, why.category in self.item.categories, longest) for why in self.item.evidence)


@dataclass(frozen=True)
class Bar:
    """What one sign, or the supports, gave; left and width in percent of a bar whose middle is nothing."""

    sign: str
    value: str
    left: float
    width: float


@dataclass(frozen=True)
class Reason:
    """The signs behind one category's score. shown: whether the image does show the category. likely: "" if unknown."""

    category: str
    score: str
    likely: str
    shown: bool
    bars: tuple[Bar, ...]


@dataclass(frozen=True)
class Gallery:
    """One method's pictures of one task. maps: whether there is any map to make room for."""

    title: str
    task: str
    pictures: tuple[Picture, ...]

    @property
    def maps(self) -> bool:
        """Whether the method draws maps."""
        return any(picture.map for picture in self.pictures)

    @property
    def masks(self) -> bool:
        """Whether anybody marked anything."""
        return any(picture.mask for picture in self.pictures)


@dataclass(frozen=True)
class SignList:
    """The signs of one category, kept ones first."""

    method: str
    task: str
    category: str
    signs: tuple[Sign, ...]


def galleries(run: Run) -> list[Gallery]:
    """Every method's pictures, task by task."""
    found = []
    for method, details in run.details.items():
        pictures = [_picture(run.path / "evaluation" / method, item) for item in details.gallery]
        for task in dict.fromkeys(x.item.task for x in pictures):
            own = tuple(x for x in pictures if x.item.task == task)
            found.append(Gallery(method_title(method), plain(task), own))
    return found


def signs(run: Run) -> list[SignList]:
    """Every category's signs."""
    return [
        SignList(method_title(method), plain(task), plain(category), tuple(sorted(found, key=lambda x: not x.kept)))
        for method, details in run.details.items()
        for task, categories in details.signs.items()
        for category, found in categories.items()
    ]


def sign_sheet(run: Run) -> Sheet:
    """Every sign of every category with its reliability."""
    rows = [(x.method, x.task, x.category, s.sign, s.reliability, int(s.kept)) for x in signs(run) for s in x.signs]
    return sheet(("method", "task", "category", "sign", "reliability", "kept"), rows)


def _picture(folder: Path, item: GalleryItem) -> Picture:
    return Picture(item, *(_embedded(folder, path) for path in (item.image, item.mask, item.map)))


def _embedded(folder: Path, name: str | None) -> str | None:
    """A PNG of the gallery as a data: address; None without it, and for a path that leaves the folder."""
    if name is None:
        return None
    path = (folder / name).resolve()
    if not path.is_relative_to(folder.resolve()) or not path.is_file():
        return None
    content = path.read_bytes()
    return "data:image/png;base64," + base64.b64encode(content).decode() if content.startswith(_PNG) else None


def _reason(why: Evidence, shown: bool, longest: float) -> Reason:
    bars = tuple(
        Bar(sign, f"{value:+.2f}".replace("-", "−"), round(50 + min(0.0, 50 * value / longest), 1),
            round(50 * abs(value) / longest, 1))
        for sign, value in _spoken(why)
    )  # fmt: skip
    likely = "" if why.probability is None else percent(why.probability)
    return Reason(plain(why.category), f"{why.score:.2f}".replace("-", "−"), likely, shown, bars)


def _spoken(why: Evidence) -> list[tuple[str, float]]:
    """The signs, then what the likeness to the supports added, if it added anything to be seen."""
    return [*why.signs, *([(LIKENESS, why.supports)] if abs(why.supports) >= 0.005 else [])]
