"""What a server would most likely ask of a site: every method with its own settings, signs of the site's tasks."""

from collections.abc import Iterable

from fed_fsad import methods
from fed_fsad.data.samples import Sample
from fed_fsad.data.signs import bundled_signs, load_signs
from fed_fsad.methods.method import TrainingSettings


def default_settings(samples: Iterable[Sample]) -> dict[str, TrainingSettings]:
    """Settings by method; a method that needs sign lists is left out when no bundled list knows the site's tasks."""
    tasks = {sample.task for sample in samples}
    found: dict[str, TrainingSettings] = {}
    for name in methods.names():
        kind = methods.settings_type(name)
        if "signs" not in kind.model_fields:
            found[name] = kind()
        elif signs := _lists_for(tasks):
            found[name] = kind.model_validate({"signs": signs})
    return found


def _lists_for(tasks: set[str]) -> tuple[str, ...]:
    """Bundled sign lists that know all `tasks`, as few as possible; none when one task is in no list."""
    lists: list[str] = []
    for task in sorted(tasks):
        knowing = [name for name in bundled_signs() if task in load_signs(name).tasks]
        if not knowing:
            return ()
        if not set(knowing) & set(lists):
            lists.append(knowing[0])
    return tuple(lists)
