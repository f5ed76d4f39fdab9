"""Local training as FedProx, SCAFFOLD, FedRep, Ditto and fine-tuning want it, against loops written out by hand."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from flwr.app import Context, Message, MessageType
from torch import Tensor

from clients.app import build_app
from clients.local import LocalParts
from fed_fsad import methods
from fed_fsad.config import Config
from fed_fsad.data.build import hospital_samples
from fed_fsad.data.episodes import eligible, sample_episode
from fed_fsad.messages import Instruction, Reply
from fed_fsad.methods.local import LocalTraining
from fed_fsad.methods.method import Method, part_of
from fed_fsad.privacy.terms import HospitalTerms
from fed_fsad.residents import rows_of
from fed_fsad.rundir import RunDir
from fed_fsad.seeds import numpy_stream
from tests.clients.test_train import DP, ask, instruction, opened

NAME = "d24fad"
Rule = Callable[[str, Tensor, Tensor], Tensor]
"""From a tensor's name, its value and its gradient to what Adam sees."""


def asked(config: Config, local: str, round_: int = 1, **changes: Any) -> Instruction:
    """A round that starts where the run does: the process's own model may hold what an earlier test left."""
    settings = {"name": local, **changes.pop("keys", {})}
    changes = {"tensors": {NAME: started(NAME, config)}, **changes}
    return replace(instruction(config, round_), local=LocalTraining.model_validate(settings), **changes)


def by_hand(
    config: Config,
    start: Mapping[str, Tensor],
    rule: Rule,
    *,
    stream: tuple[str, int],
    steps: int = 2,
    names: Sequence[str] | None = None,
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Adam (Kingma & Ba 2015, Algorithm 1) on what `rule` makes of the gradients: tensors, and mean gradients."""
    settings = config.training[NAME]
    method = methods.build(NAME, settings, config.seed)
    method.load(start)
    samples = hospital_samples(config.data, config.holdings, "north", config.seed, frozenset(), None)
    rows = rows_of(method)([samples[i] for i in eligible(samples, method.episode)])
    site, round_ = stream
    rng = numpy_stream(0, "episodes", NAME, site, round_)
    moving = {name: tensor for name, tensor in method.trainable().items() if names is None or name in names}
    first, second, mean = ({name: torch.zeros_like(t) for name, t in moving.items()} for _ in range(3))
    beta, gamma = settings.betas
    for step in range(1, steps + 1):
        loss = method.losses(sample_episode(rows, method.episode, rng)).mean()
        gradients = torch.autograd.grad(loss, list(moving.values()))
        with torch.no_grad():
            for (name, tensor), gradient in zip(moving.items(), gradients, strict=True):
                seen = rule(name, tensor, gradient)
                mean[name] += gradient / steps
                first[name] = beta * first[name] + (1 - beta) * seen
                second[name] = gamma * second[name] + (1 - gamma) * seen**2
                tensor -= (
                    settings.lr * (first[name] / (1 - beta**step)) / ((second[name] / (1 - gamma**step)).sqrt() + 1e-8)
                )
    return method.snapshot(), mean


STEP = 1e-4
"""A tenth of Adam's step: what rounding may become where a gradient is nearly 0."""


def close(
    one: Mapping[str, Tensor], two: Mapping[str, Tensor], names: Sequence[str] | None = None, atol: float = STEP
) -> None:
    """All but the offsets of the weighting, whose gradients are 0: Adam makes steps of their rounding errors."""
    for name in names or one:
        if name.startswith("weighting/") and name.endswith("bias"):
            continue
        torch.testing.assert_close(
            one[name], two[name], rtol=2e-4, atol=atol, msg=lambda said, name=name: f"{name}: {said}"
        )


def apart(one: Mapping[str, Tensor], two: Mapping[str, Tensor]) -> bool:
    return any(not torch.allclose(one[name], two[name], rtol=2e-4, atol=STEP) for name in one)


def started(method: str, config: Config) -> dict[str, Tensor]:
    return methods.build(method, config.training[method], config.seed).snapshot()


def site_state(context: Context) -> Path:
    return RunDir(Path(str(context.run_config["out"]))).site("north")


def kept(context: Context, what: str, config: Config, after: int) -> dict[str, Tensor]:
    return LocalParts(site_state(context), "run", f"{NAME}.{what}").before(after + 1, started(NAME, config))


def plainly(name: str, tensor: Tensor, gradient: Tensor) -> Tensor:
    return gradient


def test_fedprox_pulls_towards_what_was_received(tmp_path: Path) -> None:
    context, config = opened(tmp_path)
    start = started(NAME, config)
    got = ask(context, asked(config, "fedprox", keys={"mu": 5.0})).tensors[NAME]
    expected, _ = by_hand(config, start, lambda n, w, g: g + 5.0 * (w - start[n]), stream=("north", 1))
    close(got, expected)
    assert apart(got, ask(context, asked(config, "plain")).tensors[NAME])


def test_scaffold_corrects_by_its_variates_and_sends_their_step(tmp_path: Path) -> None:
    context, config = opened(tmp_path)
    start = started(NAME, config)
    server = {name: torch.full_like(value, 0.01) for name, value in start.items()}
    first = ask(context, asked(config, "scaffold", variates={NAME: server}))
    expected, mean = by_hand(config, start, lambda n, w, g: g + server[n], stream=("north", 1))
    close(first.tensors[NAME], expected)
    close(first.variates[NAME], mean, atol=2e-6)
    assert first.variates[NAME].keys() == first.tensors[NAME].keys()
    sent = replace(asked(config, "scaffold", 2, variates={NAME: server}), entered=1)
    again = [ask(context, sent) for _ in range(2)]
    expected, later = by_hand(config, start, lambda n, w, g: g + server[n] - mean[n], stream=("north", 2))
    close(again[0].tensors[NAME], expected)
    close(again[0].variates[NAME], {name: later[name] - mean[name] for name in mean}, atol=4e-6)
    assert all(torch.equal(again[0].variates[NAME][n], again[1].variates[NAME][n]) for n in mean), "asked twice"
    close(kept(context, "variates", config, after=2), later)


def test_scaffold_goes_back_to_the_last_variate_that_the_server_has(tmp_path: Path) -> None:
    context, config = opened(tmp_path)
    sent = [replace(asked(config, "scaffold", i + 1), entered=min(i, 1)) for i in range(8)]
    first, rejected, after = (ask(context, one).variates[NAME] for one in sent[:3])
    one, three = kept(context, "variates", config, after=1), kept(context, "variates", config, after=3)
    assert apart(first, rejected)
    assert all(torch.equal(after[name], three[name] - one[name]) for name in after)
    for one_more in sent[3:]:  # as many as the site would keep, and none of them enters
        ask(context, one_more)
    close(kept(context, "variates", config, after=1), one)


def test_scaffold_sends_variates_of_allowed_parts_only(tmp_path: Path) -> None:
    context, config = opened(tmp_path, "hospitals.north.policy={methods: {d24fad: [affine]}}")
    reply = ask(context, asked(config, "scaffold"))
    assert {part_of(name) for name in reply.variates[NAME]} == {"affine"}


def test_fedrep_trains_the_head_first_and_then_the_rest(tmp_path: Path) -> None:
    context, config = opened(tmp_path, "methods.d24fad.local_parts=[weighting]", "methods.d24fad.local_steps=3")
    start = started(NAME, config)
    head = [name for name in start if part_of(name) == "weighting"]
    travels = {name: value for name, value in start.items() if name not in head}
    got = ask(context, asked(config, "fedrep", tensors={NAME: travels}, keys={"head_steps": 1}))
    middle, _ = by_hand(config, start, plainly, stream=("north/head", 1), steps=1, names=head)
    close(middle, start, list(travels))
    end, _ = by_hand(config, middle, plainly, stream=("north/body", 1), steps=2, names=list(travels))
    close(got.tensors[NAME], end, list(travels))
    own = LocalParts(site_state(context), "run", NAME).before(2, {name: start[name] for name in head})
    close(own, middle, head)
    assert apart(own, {name: start[name] for name in head})


def test_ditto_keeps_a_model_of_its_own_beside_the_round(tmp_path: Path) -> None:
    context, config = opened(tmp_path)
    start = started(NAME, config)
    plain = ask(context, asked(config, "plain")).tensors[NAME]
    got = ask(context, asked(config, "ditto", keys={"mu": 5.0})).tensors[NAME]
    assert all(torch.equal(got[name], plain[name]) for name in plain), "what leaves is that of plain training"
    one, _ = by_hand(config, start, lambda n, w, g: g + 5.0 * (w - start[n]), stream=("north/personal", 1))
    close(kept(context, "personal", config, after=1), one)
    moved = {name: value + 0.01 for name, value in start.items()}
    ask(context, asked(config, "ditto", 2, tensors={NAME: moved}, keys={"mu": 5.0}))
    two, _ = by_hand(config, one, lambda n, w, g: g + 5.0 * (w - moved[n]), stream=("north/personal", 2))
    close(kept(context, "personal", config, after=2), two)


def evaluated(context: Context, sent: Instruction) -> Reply:
    message = Message(sent.pack(), dst_node_id=2, message_type=MessageType.EVALUATE)
    return Reply.unpack(build_app(lambda event: None)(message, context).content)


def test_fine_tuning_follows_the_last_round_and_is_scored_beside_the_global_model(tmp_path: Path) -> None:
    context, config = opened(tmp_path, "hospitals.north.policy={release_metrics: true}", "evaluation.shots=[2]")
    start = started(NAME, config)
    sent = asked(config, "plain", 3, keys={"fine_tune": 3}, evaluation=config.evaluation)
    assert "personal" not in evaluated(context, replace(sent, round=2)).evaluation[NAME]
    assert "personal" not in ask(context, sent).evaluation[NAME], "training comes before the last model"
    figures = evaluated(context, sent).evaluation[NAME]
    assert {"headline", "personal", "personal_low", "personal_high"} <= figures.keys()
    expected, _ = by_hand(config, start, plainly, stream=("north/fine-tune", 3), steps=3)
    close(kept(context, "personal", config, after=3), expected)


def test_a_site_that_only_watches_tunes_nothing(tmp_path: Path) -> None:
    context, config = opened(tmp_path, "hospitals.1={name: west, holds: {organs: [oct]}, role: predict-only}", text=TWO)
    context.node_config["partition-id"] = 1
    evaluated(context, asked(config, "plain", 3, keys={"fine_tune": 3}, evaluation=config.evaluation))
    assert not (RunDir(Path(str(context.run_config["out"]))).site("west") / "local").exists()


TWO = """
name: tiny
data: {kind: phantoms}
hospitals: [{name: north, holds: {organs: [oct], normal: 9}}, {name: west}]
methods: {d24fad: {teacher: {name: random}, image_size: 64, local_steps: 2, batch: 4}}
federation: {rounds: 3}
"""


def test_fedprox_under_privacy_pulls_the_noisy_model_and_costs_nothing_more(tmp_path: Path) -> None:
    replies = []
    for mu in (0.0, 1e6):
        context, config = opened(tmp_path / str(mu), *DP, "hospitals.north.policy.steps_per_round=3")
        local = {"keys": {"mu": mu}} if mu else {}
        replies.append(ask(context, asked(config, "fedprox" if mu else "plain", **local)))
    start = started(NAME, config)
    plain, pulled = (
        sum(float((value - start[name]).abs().sum()) for name, value in reply.tensors[NAME].items())
        for reply in replies
    )
    assert 0 < pulled < 0.9 * plain
    assert replies[0].epsilon == replies[1].epsilon


def test_ditto_under_privacy_stays_at_the_site(tmp_path: Path) -> None:
    answers = []
    for name in ("plain", "ditto"):
        context, config = opened(tmp_path / name, *DP)
        answers.append(ask(context, asked(config, name)))
    assert all(torch.equal(answers[0].tensors[NAME][n], value) for n, value in answers[1].tensors[NAME].items())
    assert (answers[0].epsilon, answers[0].metrics) == (answers[1].epsilon, answers[1].metrics)
    assert apart(kept(context, "personal", config, after=1), started(NAME, config))


@pytest.mark.parametrize(
    ("policy", "changes"),
    [
        (DP, {}),
        (("hospitals.north.policy.secure_aggregation=true",), {}),
        ((), {"hospital": HospitalTerms(epsilon=8)}),
    ],
    ids=["example", "masked", "hospital"],
)
def test_scaffold_is_refused_where_single_updates_are_protected(
    tmp_path: Path, policy: tuple[str, ...], changes: dict[str, Any]
) -> None:
    context, config = opened(tmp_path, *policy)
    sent = asked(config, "scaffold", **changes)
    reply = ask(context, sent)
    assert (reply.status, reply.tensors, reply.variates) == ("refused", {}, {})
    assert not (site_state(context) / "local").exists()


def test_variates_of_other_tensors_are_a_malformed_message(tmp_path: Path) -> None:
    context, config = opened(tmp_path)
    reply = ask(context, asked(config, "scaffold", variates={NAME: {"affine/x": torch.zeros(1)}}))
    assert (reply.status, reply.reason) == ("error", "it cannot read the server's message; compare the versions")


def test_every_method_folder_states_parts_it_has() -> None:
    for name in methods.names():
        method: Method = methods.build(name, methods.settings_type(name)(), 0)
        assert set(methods.normalisation(name)) <= {part_of(tensor) for tensor in method.trainable()}
