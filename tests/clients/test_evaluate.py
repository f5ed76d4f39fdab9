"""A site's own evaluation: its own images, its own supports, figures only where its policy releases them."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import Context, Message, MessageType, RecordDict
from sklearn.metrics import roc_auc_score

from clients.app import build_app
from clients.evaluate import own_bed
from clients.received import without
from clients.site import Site, open_site
from fed_fsad.data.samples import Image, Mask, Sample
from fed_fsad.evaluation.bed import draw_support
from fed_fsad.evaluation.settings import EvaluationSettings
from fed_fsad.messages import Reply
from fed_fsad.privacy.policy import Policy
from fed_fsad.privacy.terms import ExampleTerms
from fed_fsad.residents import resident, rows_of
from fed_fsad.seeds import derive
from tests.clients.test_train import ask, instruction, opened, same
from tests.conftest import write_set

RELEASES = "hospitals.north.policy={release_metrics: true}"
ASKED = EvaluationSettings(shots=(2,), draws=2)


def ask_to_evaluate(context: Context, sent: Any) -> Reply:
    message = Message(sent.pack(), dst_node_id=2, message_type=MessageType.EVALUATE)
    return Reply.unpack(build_app(lambda event: None)(message, context).content)


def test_the_headline_is_the_auroc_of_the_model_that_was_sent_on_images_it_never_trains_on(tmp_path: Path) -> None:
    context, config = opened(tmp_path, RELEASES, "hospitals.north.holds.abnormal=5")
    sent = instruction(config, evaluation=ASKED)
    with torch.no_grad():
        for tensor in sent.tensors["d24fad"].values():
            tensor.add_(0.01)
    told = ask_to_evaluate(context, sent).evaluation["d24fad"]
    site = open_site(context)
    assert not {sample.id for sample in site.test} & {sample.id for sample in site.samples}
    method = resident("d24fad", config.training["d24fad"], 0)
    method.load(sent.tensors["d24fad"])
    seed, areas = derive(0, "own evaluation", "north"), []
    labels = np.array([not sample.is_normal for sample in site.test])
    for draw in range(2):
        support = draw_support(site.samples, "oct", 2, draw, seed, per_category=False)
        bank = method.fit_support(rows_of(method)(support), "oct")
        with torch.no_grad():
            scores = method.score(rows_of(method)(site.test).features, bank).image
        areas.append(roc_auc_score(labels, scores.numpy()))
    assert told["headline"] == pytest.approx(np.mean(areas))
    assert (told["shots"], told["images"]) == (2, 14)
    assert 0 <= told["low"] <= told["headline"] <= told["high"] <= 1


def test_an_evaluation_beside_the_training_changes_no_bit_of_it(tmp_path: Path) -> None:
    context, config = opened(tmp_path, RELEASES)
    silent, telling = instruction(config), instruction(config, evaluation=ASKED)
    one, two = ask(context, silent), ask(context, telling)
    assert same(one.tensors["d24fad"], two.tensors["d24fad"])
    assert (one.evaluation, set(two.evaluation)) == ({}, {"d24fad"})


def test_figures_stay_at_home_unless_the_policy_releases_them(tmp_path: Path) -> None:
    context, config = opened(tmp_path)
    sent = instruction(config, evaluation=ASKED)
    assert ask_to_evaluate(context, sent).evaluation == ask(context, sent).evaluation == {}
    other, config = opened(
        tmp_path / "b", "hospitals.north.policy={release_metrics: true, methods: {sdmad: [context]}}"
    )
    assert ask_to_evaluate(other, instruction(config, evaluation=ASKED)).evaluation == {}


def test_figures_of_what_was_trained_under_the_servers_terms_stay_at_home(tmp_path: Path) -> None:
    terms = ExampleTerms(epsilon=8)
    context, config = opened(tmp_path, RELEASES)
    assert set(ask_to_evaluate(context, instruction(config, evaluation=ASKED)).evaluation) == {"d24fad"}
    assert ask_to_evaluate(context, instruction(config, evaluation=ASKED, example=terms)).evaluation == {}
    holds, policy = "holds: {organs: [oct], normal: 6, abnormal: 6}", "policy: {release_metrics: true}"
    watches = f"hospitals=[{{name: north, role: predict-only, {holds}, {policy}}}, {{name: south}}]"
    other, config = opened(tmp_path / "b", watches)
    found = ask_to_evaluate(other, instruction(config, evaluation=ASKED, example=terms)).evaluation
    assert set(found) == {"d24fad"}, "it has trained nothing, and its own policy decides"


def test_what_fails_in_an_evaluation_stays_in_the_log_and_the_update_leaves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def explode(*args: object) -> None:
        raise OSError("/secret/jane.png is gone")

    monkeypatch.setattr("clients.evaluate.evaluate", explode)
    context, config = opened(tmp_path, RELEASES)
    reply = ask(context, instruction(config, evaluation=ASKED))
    assert (reply.status, reply.evaluation, set(reply.tensors)) == ("ok", {}, {"d24fad"})
    assert "jane.png" in caplog.text


def test_an_answer_says_what_it_answers(tmp_path: Path) -> None:
    context, config = opened(tmp_path)
    sent = instruction(config, 2, run="abc", attempt=3)
    for reply in (ask(context, sent), ask_to_evaluate(context, sent)):
        assert (reply.run, reply.round, reply.attempt) == ("abc", 2, 3)


def test_a_predict_only_site_never_trains_and_says_who_it_is(tmp_path: Path) -> None:
    two = "hospitals=[{name: north, role: predict-only, holds: {organs: [oct], normal: 6, abnormal: 6}}, {name: south}]"
    context, config = opened(tmp_path, two)
    query = Message(RecordDict(), dst_node_id=2, message_type=MessageType.QUERY)
    assert Reply.unpack(build_app(lambda event: None)(query, context).content).role == "predict-only"
    reply = ask(context, instruction(config))
    assert (reply.status, reply.reason, reply.tensors) == ("refused", "its policy refuses (predict only)", {})


class Blank:
    """A source that is never read."""

    name = "blank"

    def image(self, size: int) -> Image:
        raise AssertionError

    def mask(self, size: int) -> Mask | None:
        raise AssertionError


def sample(number: int, category: str = "", patient: str | None = None) -> Sample:
    return Sample(f"{number:03}", "oct", (category,) if category else (), patient, Blank())


def site(samples: Sequence[Sample], role: Any) -> Site:
    return Site("eye", role, tuple(samples), Policy(release_metrics=True), Path("state"), simulated=True)


def test_an_external_site_without_test_images_splits_its_own_by_patient_and_class() -> None:
    samples = [sample(i, "drusen" if i % 2 else "", f"p{i // 2 % 10}{i % 2}") for i in range(40)]
    bed = own_bed(site(samples, "predict-only"), 0, ())
    assert bed is not None
    assert not {s.patient for s in bed.pool} & {s.patient for s in bed.test}
    assert len(bed.pool) + len(bed.test) == 40
    for part in (bed.pool, bed.test):
        assert sum(s.is_normal for s in part) == 10
    again = own_bed(site(samples[::-1], "predict-only"), 0, ())
    assert again == bed, "the order in which images were found does not matter"
    assert own_bed(site(samples, "train"), 0, ()) is None, "one that trains has seen all of them"


def test_images_of_patients_with_a_withheld_category_are_not_touched() -> None:
    samples = [sample(1), sample(2, "cnv", "a"), sample(3, "", "a"), sample(4, "drusen", "b"), sample(5, "cnv")]
    assert [s.id for s in without(samples, ("cnv",))] == ["001", "004"]
    assert without(samples, ()) == samples


def test_a_real_site_trains_on_no_image_of_a_withheld_category(tmp_path: Path) -> None:
    write_set(tmp_path / "images", {"train/normal": 9, "train/subretinal fluid": 4, "train/drusen": 4})
    (tmp_path / "policy.yaml").write_text("privacy: off\n")
    (tmp_path / "site.yaml").write_text(
        "name: st-anna\ndata: {kind: folder, root: images, task: oct}\npolicy: policy.yaml\nstate: state\n"
    )
    context = Context(1, 2, {"site-config": str(tmp_path / "site.yaml")}, RecordDict(), {})
    _, config = opened(tmp_path / "run", "methods={sdmad: {model: random, local_steps: 1, batch: 4}}")
    everything = ask(context, instruction(config))
    config = config.model_copy(
        update={"evaluation": config.evaluation.model_copy(update={"unseen_categories": ("subretinal fluid",)})}
    )
    held_back = ask(context, instruction(config))
    assert (everything.examples, held_back.examples) == ({"sdmad": 17}, {"sdmad": 13})


def test_a_server_cannot_ask_for_an_evaluation_that_makes_no_sense(tmp_path: Path) -> None:
    context, config = opened(tmp_path, RELEASES)
    sent = replace(instruction(config), evaluation=ASKED.model_copy(update={"draws": 0}))
    assert ask(context, sent).reason == "it cannot read the server's message; compare the versions"
