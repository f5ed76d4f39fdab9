"""Sign lists: what each anomaly looks like, in short findings a person can check in the image."""

from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Annotated

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, RootModel, StringConstraints, ValidationError

from fed_fsad.errors import ConfigError
from fed_fsad.names import suggestion


def _distinct(signs: tuple[str, ...]) -> tuple[str, ...]:
    twice = sorted({sign for sign in signs if signs.count(sign) > 1})
    if twice:
        raise ValueError(f"sign {twice[0]!r} appears twice; remove one")
    return signs


Sign = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
Signs = Annotated[tuple[Sign, ...], Field(min_length=1), AfterValidator(_distinct)]


class TaskSigns(BaseModel):
    """One organ and modality. modality: how captions and prompts call the image. normal: signs of a healthy image.
    categories: signs per anomaly; a sign that two categories share is the same text in both."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    modality: str = Field(min_length=1)
    normal: Signs
    categories: dict[str, Signs] = Field(min_length=1)

    @property
    def vocabulary(self) -> tuple[str, ...]:
        """Every sign once: the normal ones, then the categories' in their order."""
        every = [*self.normal, *(sign for signs in self.categories.values() for sign in signs)]
        return tuple(dict.fromkeys(every))


class SignBook(RootModel[dict[str, TaskSigns]]):
    """Task name to its signs, as in the YAML file `{task: {modality, normal: [...], categories: {name: [...]}}}`."""

    model_config = ConfigDict(frozen=True)

    @property
    def tasks(self) -> Mapping[str, TaskSigns]:
        """Task name to signs."""
        return self.root

    def __getitem__(self, task: str) -> TaskSigns:
        """The signs of one task. Raises ConfigError for a task that the list does not know."""
        if task not in self.root:
            raise ConfigError(f"the sign list knows no task {task!r}; {suggestion(task, self.root)}")
        return self.root[task]


def bundled_signs() -> tuple[str, ...]:
    """Names of the sign lists that come with the project."""
    files = (resources.files("fed_fsad.assets") / "signs").iterdir()
    return tuple(sorted(file.name.removesuffix(".yaml") for file in files if file.name.endswith(".yaml")))


def load_signs(name_or_path: str) -> SignBook:
    """A bundled sign list by its name, or a user's YAML file by its path (anything that ends in .yaml or .yml).

    Raises ConfigError when there is no such list, or when a category has no signs or one sign twice.
    """
    if name_or_path.endswith((".yaml", ".yml")):
        path = Path(name_or_path)
        if not path.is_file():
            raise ConfigError(f"sign list {name_or_path} does not exist; check the path.")
        return _parse(path.read_text(encoding="utf-8"), name_or_path)
    known = bundled_signs()
    if name_or_path not in known:
        raise ConfigError(f"no sign list is called {name_or_path!r}; {suggestion(name_or_path, known)}")
    text = (resources.files("fed_fsad.assets") / "signs" / f"{name_or_path}.yaml").read_text(encoding="utf-8")
    return _parse(text, f"{name_or_path}.yaml")


def _parse(text: str, file: str) -> SignBook:
    try:
        return SignBook.model_validate(yaml.safe_load(text))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}" if mark else ""
        raise ConfigError(f"sign list {file} is not valid YAML{where}; correct it there.") from None
    except ValidationError as error:
        raise ConfigError(f"sign list {file}: {_first_problem(error)}.") from None


def _first_problem(error: ValidationError) -> str:
    """Where the first problem lies and what it is, in words."""
    first = error.errors()[0]
    where = " > ".join(str(part) for part in first["loc"]) or "the file"
    if first["type"] == "too_short":
        return f"{where} has no signs; list at least one"
    if first["type"] == "missing":
        return f"{where} is missing; add it"
    return f"{where}: {first['msg'].removeprefix('Value error, ')}"
