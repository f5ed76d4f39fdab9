"""A whole federation small enough for a test: three hospitals, both methods, one of them under DP."""

import pytest

TEXT = """
name: small
data: {kind: phantoms, test_normal: 6, test_abnormal: 8, pool: 4}
hospitals:
  - {name: north, holds: {organs: [oct], normal: 8, abnormal: 8}}
  - {name: south, holds: {organs: [liver_ct], normal: 8, abnormal: 8, style: 1}}
  - name: west
    holds: {organs: [fundus], normal: 24, abnormal: 8, style: 2}
    policy: {privacy: example, epsilon: 8, largest_rho: 100, methods: {d24fad: [affine], sdmad: [context]}}
methods:
  d24fad: {teacher: {name: random}, image_size: 64, local_steps: 2, batch: 4}
  sdmad: {model: random, local_steps: 1, batch: 4}
federation: {rounds: 4}
evaluation: {shots: [2], draws: 2, unseen_task: brain_mri, unseen_categories: [hard exudates]}
privacy: {insecure_noise_seed: 7}
arms: []
"""


@pytest.fixture
def small_config() -> str:
    """YAML of the small federation."""
    return TEXT
