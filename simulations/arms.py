"""What a federation is compared with: the same steps on all images pooled, and every hospital on its own."""

from collections.abc import Iterator, Sequence

from fed_fsad import methods
from fed_fsad.config import Config
from fed_fsad.data.build import hospital_samples
from fed_fsad.data.episodes import eligible
from fed_fsad.data.samples import Sample
from fed_fsad.methods.method import Method, part_of
from fed_fsad.methods.training import train
from fed_fsad.progress import Progress
from fed_fsad.residents import resident, rows_of
from fed_fsad.rundir import Event, RunDir
from fed_fsad.seeds import reproducible
from server.scoring import Scorer

Arm = tuple[str, str | None, Sequence[Sample], int]
"""Name of the arm, the hospital (None = all), its images, and how many sites' steps it takes per round."""


def missing_arms(config: Config, run: RunDir) -> set[tuple[str, str | None, str]]:
    """(arm, hospital or None, method) of what the config asks for and this run does not hold yet."""
    done = {(line["arm"], line.get("site"), line["method"]) for line in run.events() if line["kind"] == "arm"}
    owners: dict[str, tuple[str | None, ...]] = {"pooled": (None,), "local": config.trainers}
    wanted = {(str(arm), site, name) for arm in config.arms for site in owners[arm] for name in config.methods}
    return wanted - done


def run_arms(config: Config, run: RunDir, progress: Progress) -> None:
    """Train and evaluate the arms that the config asks for and that this run does not hold yet."""
    reproducible(config.threads)
    missing = missing_arms(config, run)
    scorer: Scorer | None = None
    for arm, site, samples, share in _arms(config):
        for name in config.methods:
            if (arm, site, name) not in missing:
                continue
            scorer = scorer or Scorer(config, run)
            event = _train_arm(config, scorer, name, (arm, site, samples, share), progress)
            run.log(event)
            progress(event)


def _arms(config: Config) -> Iterator[Arm]:
    if not config.arms:
        return
    unseen = config.evaluation
    withheld = frozenset(unseen.unseen_categories)
    held = {
        name: hospital_samples(config.data, config.holdings, name, config.seed, withheld, unseen.unseen_task)
        for name in config.trainers
    }
    if "pooled" in config.arms:
        share = config.federation.participants or len(held)
        yield "pooled", None, [sample for name in sorted(held) for sample in held[name]], share
    if "local" in config.arms:
        for name, samples in held.items():
            yield "local", name, samples, 1


def _train_arm(config: Config, scorer: Scorer, name: str, arm: Arm, progress: Progress) -> Event:
    """A fresh method after as many steps as the sites of the federation take together (pooled) or one of them takes
    (local). Nothing leaves, so nothing is noised; who has too few images to train keeps the untrained tensors.
    """
    label, site, samples, _ = arm
    settings = config.training[name]
    method = resident(name, settings, config.seed)
    method.load(methods.build(name, settings, config.seed).snapshot())
    event: Event = {"kind": "arm", "arm": label, "site": site}
    usable = eligible(samples, method.episode)
    if len(usable) > method.episode.supports:
        _train_rounds(config, method, [samples[i] for i in usable], arm, progress)
    return scorer.score(name, method, event)


def _train_rounds(config: Config, method: Method, samples: Sequence[Sample], arm: Arm, progress: Progress) -> None:
    label, site, _, share = arm
    settings = config.training[method.name]
    rows = rows_of(method)(samples)
    parts = {part_of(tensor) for tensor in method.trainable()}
    owner = site or label
    for round_ in range(1, config.federation.rounds + 1):
        stream = (config.seed, f"{label}/{owner}", round_)
        train(method, settings, rows, parts=parts, stream=stream, steps=settings.local_steps * share)
        step = {"kind": "step", "site": owner, "method": method.name, "what": label}
        progress({**step, "done": round_, "total": config.federation.rounds})
