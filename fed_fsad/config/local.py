"""What of a federation goes with the local training it asks for."""

from collections.abc import Mapping

from fed_fsad import methods
from fed_fsad.methods.local import LocalTraining
from fed_fsad.methods.method import TrainingSettings


def with_local(local: LocalTraining, settings: Mapping[str, TrainingSettings]) -> dict[str, TrainingSettings]:
    """Settings by method; under FedBN what its normalisation layers hold is local, too."""
    if local.name != "fedbn":
        return dict(settings)
    stay = {name: dict.fromkeys((*own.local_parts, *methods.normalisation(name))) for name, own in settings.items()}
    return {name: own.model_copy(update={"local_parts": tuple(stay[name])}) for name, own in settings.items()}


def problem_of(
    local: LocalTraining, settings: Mapping[str, TrainingSettings], *, strategy: str, private: bool
) -> str | None:
    """Why the sites cannot train so, in one sentence with a remedy, or None.

    settings: by method. private: whether the server hides single updates, by noise or masks, or asks the sites to.
    """
    if local.name == "scaffold" and private:
        return (
            "is scaffold, whose control variates are bare gradients that neither privacy.mode nor "
            "privacy.secure_aggregation protects; choose fedprox, or set both off"
        )
    if local.name == "scaffold" and strategy != "fedavg":
        return f"is scaffold, which averages, and federation.strategy.name is {strategy}; set that to fedavg"
    if local.name == "fedbn" and not any(map(methods.normalisation, settings)):
        return f"is fedbn and {', '.join(sorted(settings))} has no normalisation layer that trains; choose another"
    if local.name == "ditto" and local.fine_tune:
        return "is ditto, which keeps a personal model already; set federation.local.fine_tune to 0"
    if local.name == "fedrep":
        return _no_head(local, settings)
    return None


def _no_head(local: LocalTraining, settings: Mapping[str, TrainingSettings]) -> str | None:
    heads = {name: own for name, own in settings.items() if own.local_parts}
    if not heads:
        return "is fedrep and no part stays at the sites; name the head in methods.NAME.local_parts"
    for name, own in sorted(heads.items()):
        if local.steps_of_head(own.local_steps) >= own.local_steps:
            return f"is fedrep and leaves the other parts of {name} no step; raise methods.{name}.local_steps"
    return None
