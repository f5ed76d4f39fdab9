"""One round at one hospital: its policy decides, it trains on its own images, and only what is allowed leaves."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

from clients.evaluate import own_figures
from clients.local import LocalParts
from clients.personal import ditto
from clients.received import load_received, without
from clients.site import Site
from clients.variants import admit_variant, pull, train_here
from fed_fsad import __version__
from fed_fsad.data.episodes import eligible
from fed_fsad.errors import PolicyRefusal
from fed_fsad.messages import Instruction, Reply
from fed_fsad.methods.method import Method, TrainingSettings, part_of, travelling
from fed_fsad.methods.training import OnStep, moving
from fed_fsad.privacy.account import LEDGER
from fed_fsad.privacy.admission import admit_request, claim
from fed_fsad.privacy.ledger import Ledger
from fed_fsad.privacy.lines import Request
from fed_fsad.privacy.noise import InsecureSeededNoise, SecureNoise
from fed_fsad.privacy.release import Outbox, request_key
from fed_fsad.privacy.terms import admit_terms, agreed
from fed_fsad.privacy.training import Books, Plan, private_records, sampling_rate, site_records, train_privately
from fed_fsad.residents import resident, rows_of
from fed_fsad.rundir import Event
from fed_fsad.seeds import derive, reproducible

Observer = Callable[[Event], None]


@dataclass
class _Answer:
    """What is gathered, method by method, for the reply."""

    tensors: dict[str, Mapping[str, Tensor]] = field(default_factory=dict)
    variates: dict[str, Mapping[str, Tensor]] = field(default_factory=dict)
    metrics: dict[str, dict[str, float]] = field(default_factory=dict)
    examples: dict[str, int] = field(default_factory=dict)
    privacy: dict[str, Any] = field(default_factory=dict)


def train_round(site: Site, instruction: Instruction, observer: Observer) -> Reply:
    """Train every method that was asked for and that the site's policy and images allow.

    Raises PolicyRefusal (nothing that was asked for is allowed, or noise that hides nothing is asked for), BudgetSpent,
    DataError, ConfigError, and MalformedMessage for tensors that are not the method's; nothing has left then.
    """
    reproducible(instruction.threads)
    started = time.perf_counter()
    site = replace(site, policy=agreed(site.policy, instruction.example))
    admit_terms(site.policy, instruction.hospital)
    admit_variant(site.policy, instruction)
    if site.policy.privacy != "off" and instruction.insecure_noise_seed is not None and not site.simulated:
        raise PolicyRefusal("insecure_noise", "the server asks for noise that it could subtract: drop its noise seed")
    if site.role == "predict-only":
        raise PolicyRefusal("predict_only", "this site only evaluates: list it as predict-only on the server")
    plan = _plan(site, instruction)
    evaluation = own_figures(site, instruction, instruction.round)
    answer = _Answer()
    if site.policy.privacy == "off":
        for method, parts in plan:
            _train_plainly(site, instruction, method, parts, answer, observer)
    else:
        with _books(site) as books:
            rates = tuple(_sampling_rate(site, instruction, method) for method, _ in plan)
            for method, parts in plan:
                _train_privately(site, instruction, method, parts, books, rates, answer, observer)
            answer.privacy = {
                "epsilon": books.ledger.epsilon,
                "delta": books.ledger.delta,
                "unit": books.ledger.unit,
                "claim": claim(site.policy, books.ledger),
            }
    if instruction.local.name == "ditto":
        for method, parts in plan:
            ditto(site, instruction, method, parts)
    return Reply(
        site=site.name,
        version=__version__,
        tensors=answer.tensors,
        variates=answer.variates,
        metrics=answer.metrics,
        examples=answer.examples,
        # Under privacy none: they would tell how many records a sampled batch has drawn.
        seconds=time.perf_counter() - started if site.policy.privacy == "off" else 0.0,
        run=instruction.run,
        round=instruction.round,
        attempt=instruction.attempt,
        role=site.role,
        evaluation=evaluation,
        **answer.privacy,
    )


def _plan(site: Site, instruction: Instruction) -> list[tuple[Method, tuple[str, ...]]]:
    """Methods this site trains in every round of the run, with their parts; the same list in each round."""
    plan: list[tuple[Method, tuple[str, ...]]] = []
    refusals: list[PolicyRefusal] = []
    for name, settings in sorted(instruction.settings.items()):
        method = resident(name, settings, instruction.seed)
        parts = tuple(dict.fromkeys(part_of(tensor) for tensor in method.trainable()))
        samples = without(site.samples, settings.withheld)
        if len(eligible(samples, method.episode)) <= method.episode.supports:
            continue
        try:
            allowed = admit_request(site.policy, name, parts, instruction.cohort)
            _admit_local(site, settings, allowed)
            if site.policy.privacy == "example":
                private_records(method, allowed, samples, site.policy)
        except PolicyRefusal as refusal:
            refusals.append(refusal)
            continue
        plan.append((method, allowed))
    if plan:
        return plan
    raise refusals[0] if refusals else PolicyRefusal("no_images", "no method finds enough images here: add images")


def _admit_local(site: Site, settings: TrainingSettings, allowed: tuple[str, ...]) -> None:
    """Raises PolicyRefusal when parts that stay here cannot be trained, or when nothing but them may be."""
    if not settings.local_parts:
        return
    if site.policy.privacy != "off":
        raise PolicyRefusal(
            "local_parts_under_privacy",
            "parts that stay here are trained without noise and shape what leaves: take part without local_parts only",
        )
    if set(allowed) <= set(settings.local_parts):
        raise PolicyRefusal("only_local_parts", "the policy allows no part that would be sent: list one to take part")


def _train_plainly(
    site: Site, instruction: Instruction, method: Method, parts: tuple[str, ...], answer: _Answer, observer: Observer
) -> None:
    name, settings = method.name, instruction.settings[method.name]
    load_received(site, method, instruction, instruction.round)
    own = without(site.samples, settings.withheld)
    samples = [own[i] for i in eligible(own, method.episode)]
    untouched = method.untouched(samples)
    rows = rows_of(method, _report(observer, site, name, "features"))(samples)
    done = train_here(site, instruction, method, rows, parts, _report(observer, site, name, "steps"))
    sent = travelling(moving(method, parts), settings)
    answer.tensors[name] = {key: value.detach().clone() for key, value in sent.items() if key not in untouched}
    if done.variates:
        answer.variates[name] = {key: done.variates[key] for key in answer.tensors[name]}
    if settings.local_parts:
        LocalParts(site.state, instruction.run, name).keep(instruction.round, moving(method, settings.local_parts))
    answer.metrics[name] = {"loss": done.log.loss, **done.log.diagnostics}
    answer.examples[name] = len(rows)


def _train_privately(
    site: Site,
    instruction: Instruction,
    method: Method,
    parts: tuple[str, ...],
    books: Books,
    rates: tuple[float, ...],
    answer: _Answer,
    observer: Observer,
) -> None:
    name, settings = method.name, instruction.settings[method.name]
    load_received(site, method, instruction, instruction.round)
    asked = {"settings": settings.model_dump(mode="json"), "parts": list(parts), "rounds": instruction.rounds}
    asked |= {"local": instruction.local.model_dump()} if instruction.local.name == "fedprox" else {}
    request = Request(
        run=instruction.run, round=instruction.round, method=name, key=request_key(instruction.tensors[name], asked)
    )
    seed = instruction.insecure_noise_seed
    stream = ("noise", site.name, instruction.round, name)
    answer.tensors[name] = train_privately(
        method,
        settings,
        rows_of(method, _report(observer, site, name, "features")),
        without(site.samples, settings.withheld),
        parts=parts,
        books=books,
        request=request,
        plan=Plan(instruction.rounds, rates),
        noise=SecureNoise() if seed is None else InsecureSeededNoise(derive(seed, *stream)),
        correct=pull(instruction, method),
        on_step=_report(observer, site, name, "private steps"),
    )


def _sampling_rate(site: Site, instruction: Instruction, method: Method) -> float:
    samples = without(site.samples, instruction.settings[method.name].withheld)
    return sampling_rate(site_records(method, samples, site.policy), site.policy)


@contextmanager
def _books(site: Site) -> Iterator[Books]:
    policy = site.policy
    path = site.state / LEDGER
    with Ledger.open(path, unit=policy.unit, delta=policy.delta, epsilon=policy.epsilon) as ledger:
        yield Books(policy, ledger, Outbox(site.state / "outbox"))


def _report(observer: Observer, site: Site, method: str, what: str) -> OnStep:
    def on_step(done: int, total: int) -> None:
        observer({"kind": "step", "site": site.name, "method": method, "what": what, "done": done, "total": total})

    return on_step
