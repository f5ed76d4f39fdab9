"""policy.yaml is read as written, and a slip in it is named."""

from pathlib import Path

import pytest

from fed_fsad.errors import ConfigError, PolicyRefusal
from fed_fsad.privacy.admission import admit_records, admit_request, rho
from fed_fsad.privacy.policy import Policy, load_policy


def load(folder: Path, text: str) -> Policy:
    path = folder / "policy.yaml"
    path.write_text(text, encoding="utf-8")
    return load_policy(path)


def example(**changes: object) -> Policy:
    return Policy.model_validate({"privacy": "example", "epsilon": 8, **changes})


def test_everything_a_policy_can_say(tmp_path: Path) -> None:
    policy = load(
        tmp_path,
        """
        privacy: example
        unit: patient
        epsilon: 2
        delta: 1e-6
        clip_norm: 0.5
        least_noise: 1.2
        steps_per_round: 3
        methods: {sdmad: [context], d24fad: []}
        smallest_cohort: 3
        smallest_records: 20
        largest_rho: 2
        """,
    )
    assert (policy.unit, policy.epsilon, policy.delta, policy.steps_per_round) == ("patient", 2, 1e-6, 3)
    assert policy.methods == {"sdmad": ("context",), "d24fad": ()}


def test_a_bare_off_is_off_although_yaml_reads_false(tmp_path: Path) -> None:
    assert load(tmp_path, "privacy: off").privacy == "off"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("privacy: example\nepsilom: 2", "unknown key 'epsilom'; did you mean 'epsilon'?"),
        ("privacy: off\nzzz: 2", "unknown key 'zzz'; choose from clip_norm, delta"),
        ("privacy: on", "privacy: input should be 'off' or 'example', but it is True"),
        ("privacy: example", "state epsilon"),
        ("privacy: example\nepsilon: 0", "epsilon: input should be greater than 0, but it is 0"),
        ("privacy: example\nepsilon: .inf", "epsilon: input should be a finite number"),
        ("privacy: example\nepsilon: much", "epsilon: input should be a valid number"),
        ("privacy: example\nepsilon: 1\ndelta: 1", "delta: input should be less than 1, but it is 1"),
        ("methods: {sdmad: context}", "methods.sdmad: input should be a valid tuple"),
        ("steps_per_round: 0", "steps_per_round: input should be greater than or equal to 1"),
        ("[1, 2]", "holds no settings"),
        ("", "holds no settings"),
        ("privacy: [", "cannot be read"),
    ],
)
def test_slips_are_named_in_one_sentence(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(ConfigError) as error:
        load(tmp_path, text)
    assert words in str(error.value)
    assert str(tmp_path / "policy.yaml") in str(error.value)
    assert "\n" not in str(error.value)


def test_a_policy_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml cannot be read"):
        load_policy(tmp_path / "none.yaml")


def test_allowed_parts() -> None:
    parts = ("context", "adapters")
    assert Policy().allowed_parts("sdmad", parts) == parts
    policy = Policy(methods={"sdmad": ("adapters",), "d24fad": ()})
    assert policy.allowed_parts("sdmad", parts) == ("adapters",)
    assert policy.allowed_parts("d24fad", parts) == ()
    assert policy.allowed_parts("third", parts) == ()
    with pytest.raises(ConfigError, match="did you mean 'context'"):
        Policy(methods={"sdmad": ("contxt",)}).allowed_parts("sdmad", parts)


def test_requests_beyond_the_policy_are_refused() -> None:
    policy = Policy(methods={"sdmad": ("context",)}, smallest_cohort=3)
    assert admit_request(policy, "sdmad", ("context", "adapters"), 3) == ("context",)
    with pytest.raises(PolicyRefusal) as refusal:
        admit_request(policy, "sdmad", ("context",), 2)
    assert refusal.value.code == "cohort_too_small"
    with pytest.raises(PolicyRefusal) as refusal:
        admit_request(policy, "d24fad", ("student",), 3)
    assert refusal.value.code == "method_forbidden"


@pytest.mark.parametrize(("dims", "records", "expected"), [(4 * 512, 16, 1.7), (4 * 512, 64, 0.42)])
def test_rho_is_the_published_figure(dims: int, records: int, expected: float) -> None:
    assert rho(8, 1e-5, dims, records) == pytest.approx(expected, abs=0.01)


def records(count: int, size: int = 1) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(f"{r}-{i}" for i in range(size)) for r in range(count))


def test_noise_against_signal_is_admitted_warned_of_or_refused() -> None:
    assert admit_records(example(), records(64), 2048).warning is None
    warned = admit_records(example(), records(16), 2048)
    assert warned.rho == pytest.approx(1.7, abs=0.01)
    assert "rho is 1.70" in str(warned.warning)
    with pytest.raises(PolicyRefusal) as refusal:
        admit_records(example(), records(8), 2048)
    assert refusal.value.code == "noise_too_large"
    assert admit_records(example(largest_rho=4), records(8), 2048).rho > 3


@pytest.mark.parametrize(
    ("policy", "count", "code"),
    [
        (example(smallest_records=10), 9, "too_few_records"),
        (example(), 0, "too_few_records"),
        (example(delta=0.02), 10, "delta_too_large"),
    ],
)
def test_too_few_records_are_refused(policy: Policy, count: int, code: str) -> None:
    with pytest.raises(PolicyRefusal) as refusal:
        admit_records(policy, records(count, size=5), 1)
    assert refusal.value.code == code


def test_delta_is_measured_against_images_not_records() -> None:
    assert admit_records(example(delta=0.02), records(10), 1).rho > 0
