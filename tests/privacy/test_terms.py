"""Server and hospital meet: what holds is never weaker than what either of them says."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fed_fsad.errors import PolicyRefusal
from fed_fsad.privacy.policy import Policy
from fed_fsad.privacy.terms import ExampleTerms, HospitalTerms, admit_terms, agreed

UNITS = st.sampled_from(["image", "patient"])
BOUNDS = {"epsilon": st.floats(0.01, 50), "delta": st.floats(1e-9, 0.1), "clip_norm": st.floats(0.01, 10)}
LIMITS = {
    "least_noise": st.floats(0, 5),
    "methods": st.sampled_from([None, {"sdmad": ("context",)}, {}]),
    "smallest_cohort": st.integers(1, 9),
    "smallest_records": st.integers(1, 99),
    "largest_rho": st.floats(0.1, 9),
}


@st.composite
def policies(draw: st.DrawFn) -> Policy:
    private = draw(st.booleans())
    limits = {name: draw(kind) for name, kind in {**BOUNDS, **LIMITS, "unit": UNITS}.items()}
    metrics = not private and draw(st.booleans())
    return Policy(privacy="example" if private else "off", release_metrics=metrics, **limits)


@given(policies(), st.none() | st.builds(ExampleTerms, unit=UNITS, **BOUNDS))
def test_the_result_is_never_weaker_than_either(policy: Policy, asked: ExampleTerms | None) -> None:
    found = agreed(policy, asked)
    sides = ([policy] if policy.privacy == "example" else []) + ([asked] if asked else [])
    assert (found.privacy == "example") == bool(sides)
    for side in sides:
        assert found.epsilon <= side.epsilon
        assert found.delta <= side.delta
        assert found.clip_norm <= side.clip_norm
        assert found.unit == "patient" or side.unit == "image"
    if sides:
        assert any(found.epsilon == side.epsilon for side in sides), "and no stricter than the stricter one"
        assert not found.release_metrics, "no figure without a guarantee leaves"
        Policy.model_validate(found.model_dump())
    for limit in LIMITS:
        assert getattr(found, limit) == getattr(policy, limit), "what the policy forbids stays forbidden"
    assert agreed(found, asked) == found


def test_a_policy_without_privacy_takes_over_what_the_server_asks() -> None:
    asked = ExampleTerms(epsilon=20, delta=1e-7, unit="patient", clip_norm=3)
    found = agreed(Policy(), asked)
    assert (found.privacy, found.epsilon, found.delta, found.unit, found.clip_norm) == (
        "example", 20, 1e-7, "patient", 3,
    )  # fmt: skip


def test_a_policy_that_demands_hospital_level_privacy_is_kept() -> None:
    policy = Policy(hospital_epsilon=4)
    admit_terms(policy, HospitalTerms(epsilon=4))
    admit_terms(Policy(), None)
    for promised, said in ((None, "promises none"), (HospitalTerms(epsilon=8), "promises 8")):
        with pytest.raises(PolicyRefusal, match=said) as refusal:
            admit_terms(policy, promised)
        assert refusal.value.code == "no_hospital_level_privacy"
