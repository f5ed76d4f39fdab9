"""`fed-fsad site preview`: one round on a copy of the site's state, nothing connected, and all that would leave."""

import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from flwr.app import Context, RecordDict

from clients.app import answer_evaluation, answer_round
from clients.defaults import default_settings
from clients.journal import answers
from clients.settings import SiteSettings, load_settings
from clients.site import own_samples
from clients.train import Observer
from fed_fsad.config import Config, Federation
from fed_fsad.evaluation.settings import EvaluationSettings
from fed_fsad.messages import Instruction
from fed_fsad.methods.method import travelling
from fed_fsad.privacy.account import LEDGER, spent_so_far
from fed_fsad.privacy.policy import Policy, load_policy
from fed_fsad.privacy.terms import agreed
from fed_fsad.residents import resident

STAYS = (
    "images, masks, file names, paths, labels and patients",
    "features and every frozen weight",
    "gradients, optimiser state and the random streams of privacy noise",
    "the policy, the ledger, the site's log and the text of every error",
)
UNDER_PRIVACY = ("the loss and the number of images, which no noise covers",)


@dataclass(frozen=True)
class LeavingTensor:
    """One tensor that would leave: its method, its name "part/parameter", its shape, dtype and bytes."""

    method: str
    name: str
    shape: tuple[int, ...]
    dtype: str
    bytes: int


@dataclass(frozen=True)
class Preview:
    """Everything a round would send. figures: by record, then by name. texts: status, reason, ε and what else is said.

    trouble: why nothing was trained, in words that stay at the site. epsilon: (before, after), None without privacy.
    """

    tensors: tuple[LeavingTensor, ...]
    figures: Mapping[str, Mapping[str, float]]
    texts: Mapping[str, Any]
    bytes: int
    stays: tuple[str, ...]
    trouble: str | None
    epsilon: tuple[float, float] | None


def preview(path: Path, config: Config | None, observer: Observer) -> Preview:
    """The answer of the site of `path` to round 1 of `config`, or of every method with its own settings.

    The site's own ClientApp makes it, with a copy of the ledger in a folder that is removed afterwards. Raises
    ConfigError and what else the site's own files are to blame for.
    """
    settings = load_settings(path)
    policy = agreed(load_policy(settings.policy), config.privacy.asked if config else None)
    private = policy.privacy != "off"
    before = spent_so_far(settings.state) if private else 0.0
    with tempfile.TemporaryDirectory() as folder:
        copy = _copied(settings, Path(folder))
        context = Context(1, 1, {"site-config": str(copy)}, RecordDict(), {})
        asked = _instruction(config, settings, policy).pack()
        evaluates = settings.role == "predict-only"
        content = answer_evaluation(context, asked) if evaluates else answer_round(context, asked, observer)
        state = Path(folder) / "state"
        return Preview(
            tensors=tuple(_tensors(content)),
            figures={name: _plain(record) for name, record in content.metric_records.items()},
            texts={key: value for key, value in content.config_records["reply"].items() if value != ""},
            bytes=sum(len(array.data) for record in content.array_records.values() for array in record.values()),
            stays=STAYS + UNDER_PRIVACY * private,
            trouble=answers(state)[-1]["trouble"],
            epsilon=(before, spent_so_far(state)) if private else None,
        )


def _copied(settings: SiteSettings, folder: Path) -> Path:
    """A site.yaml in `folder` whose state lies there too; the ledger comes along, so that ε goes on from it."""
    state = folder / "state"
    state.mkdir()
    if (settings.state / LEDGER).exists():
        shutil.copyfile(settings.state / LEDGER, state / LEDGER)
    content = settings.model_copy(update={"state": state}).model_dump(mode="json", exclude_none=True)
    path = folder / "site.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


def _instruction(config: Config | None, site: SiteSettings, policy: Policy) -> Instruction:
    """What the server of `config` would ask in round 1; without it, what the defaults would make it ask."""
    federation = config.federation if config else Federation()
    seed = config.seed if config else 0
    blocks = config.training if config else default_settings(own_samples(site))
    return Instruction(
        run="preview",
        round=1,
        rounds=federation.rounds,
        seed=seed,
        threads=config.threads if config else 1,
        cohort=(federation.participants or len(config.trainers)) if config else policy.smallest_cohort,
        settings=blocks,
        tensors={name: travelling(resident(name, block, seed).snapshot(), block) for name, block in blocks.items()},
        evaluation=config.evaluation if config else EvaluationSettings(),
        example=config.privacy.asked if config else None,
        hospital=config.privacy.central if config else None,
        local=federation.local,
    )


def _tensors(content: RecordDict) -> list[LeavingTensor]:
    return [
        LeavingTensor(key.partition("/")[0], name, tuple(array.shape), array.dtype, len(array.data))
        for key, record in content.array_records.items()
        for name, array in record.items()
    ]


def _plain(record: Mapping[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in record.items()}
