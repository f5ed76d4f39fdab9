"""The ways in which differential privacy is known to go wrong, and the test that falls for none of them.

Traps without a test elsewhere have it here.
"""

import ast
from pathlib import Path

import pytest
from torch import nn

from fed_fsad import methods
from fed_fsad.methods.method import Method
from fed_fsad.privacy.policy import Policy

REPOSITORY = Path(__file__).resolve().parents[2]
D24FAD = "methods/d24fad/test_private_gradients.py"
SDMAD = "methods/sdmad/test_private_gradients.py"
TRAPS = {
    "clipping pairs of query and supports": (
        "privacy/test_gradients.py::test_records_of_tuples_are_no_records_of_images"
    ),
    "random, deranged and fixed supports": (
        f"{D24FAD}::test_clipping_pairs_of_query_and_supports_is_no_bound_for_an_image"
    ),
    "an episode moves the sum by more than C": (
        f"{D24FAD}::test_removing_an_episode_shifts_the_sum_by_at_most_the_clip_norm"
    ),
    "an image moves the sum by more than C": (
        f"{SDMAD}::test_removing_an_image_shifts_the_sum_by_at_most_the_clip_norm"
    ),
    "a patient in two records": "privacy/test_gradients.py::test_a_patient_in_two_records_is_refused",
    "BatchNorm": f"{D24FAD}::test_batch_norm_is_refused_because_it_mixes_images",
    "frozen BatchNorm in train mode": (
        f"{D24FAD}::test_batch_norm_left_in_train_mode_would_couple_images_and_group_norm_does_not"
    ),
    "tokens of a sequence-first tower as samples": (
        f"{SDMAD}::test_records_are_images_neither_tokens_nor_signs_nor_classes"
    ),
    "class embeddings as samples": f"{SDMAD}::test_clipped_gradients_are_the_slow_ones",
    "NaN in one record": "privacy/test_gradients.py::test_an_invalid_record_counts_as_zero_and_silences_no_other",
    "NaN through the shared text tower": (
        f"{SDMAD}::test_an_image_that_is_not_finite_counts_as_zero_and_silences_no_other"
    ),
    "an empty batch releases nothing": "privacy/test_gradients.py::test_no_record_still_releases_noise",
    "an empty sampled batch is free": "privacy/test_sampling.py::test_an_empty_sampled_batch_still_releases_noise",
    "dividing by the realised size": (
        "privacy/test_sampling.py::test_training_divides_by_the_expected_size_whatever_the_coins_say"
    ),
    "sampling claimed and not done": "privacy/test_sampling.py::test_every_record_enters_by_a_coin_of_its_own",
    "noise on learn-to-weight's biases": (
        f"{D24FAD}::test_the_biases_of_learn_to_weight_have_no_gradient_and_get_no_noise"
    ),
    "buffers and scalars released": "privacy/test_traps.py::test_no_buffer_and_no_scalar_can_travel",
    "loss and counts released": (
        "clients/test_train.py::test_under_dp_only_the_allowed_part_leaves_and_neither_loss_nor_count"
    ),
    "metrics released": "privacy/test_traps.py::test_figures_without_a_guarantee_cannot_be_released",
    "a swapped backbone": "test_assets.py::test_one_changed_byte_is_noticed",
    "a swapped teacher": "methods/d24fad/test_teacher.py::test_a_file_of_another_hash_is_refused",
    "seeded noise": (
        "clients/test_hostile_server.py::test_a_real_site_under_dp_never_draws_its_noise_from_the_servers_seed"
    ),
    "halved noise": "privacy/test_mechanism.py::test_halved_noise_is_caught",
    "no clipping": "privacy/test_mechanism.py::test_a_step_that_does_not_clip_is_caught",
    "the same noise twice": "privacy/test_noise.py::test_secure_noise_never_repeats",
    "charging after the release": "privacy/test_release.py::test_killed_twice_the_budget_never_undercounts",
    "a budget that begins anew": (
        "clients/test_train.py::test_the_budget_outlives_the_node_and_ends_in_an_answer_that_is_no_update"
    ),
    "a ledger without some of its charges": (
        "privacy/test_composition.py::test_a_sampled_charge_that_is_missing_or_cheapened_is_noticed"
    ),
}


@pytest.mark.parametrize("trap", TRAPS)
def test_every_trap_has_its_test(trap: str) -> None:
    file, _, name = TRAPS[trap].partition("::")
    tree = ast.parse((REPOSITORY / "tests" / file).read_text(encoding="utf-8"))
    assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_figures_without_a_guarantee_cannot_be_released() -> None:
    with pytest.raises(ValueError, match="release_metrics: true is not covered"):
        Policy(privacy="example", epsilon=8, release_metrics=True)


def buffers(method: Method) -> set[int]:
    """The addresses of all buffers in a method's networks."""
    networks = [network for network in vars(method).values() if isinstance(network, nn.Module)]
    return {buffer.data_ptr() for network in networks for buffer in network.buffers()}


@pytest.mark.parametrize("settings", [{}, {"norm": "batch"}, {"student": "light"}, {"l2w_scale": "learned"}])
def test_no_buffer_and_no_scalar_can_travel(settings: dict[str, str]) -> None:
    own = methods.build("d24fad", methods.settings_type("d24fad").model_validate(settings), 0)
    signs = methods.build("sdmad", methods.settings_type("sdmad")(), 0)
    assert bool(buffers(own)) == (settings == {"norm": "batch"}), "the control: BatchNorm has buffers to leave out"
    for method in (own, signs):
        for name, tensor in method.trainable().items():
            assert tensor.is_floating_point(), name
            assert tensor.requires_grad, name
            assert tensor.is_leaf, name
            assert tensor.dim() > 0, name
            assert tensor.data_ptr() not in buffers(method), name
