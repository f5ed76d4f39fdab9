"""Whether the methods find enough to train on, or to evaluate on."""

from collections.abc import Sequence

import torch

from clients.check.line import Line, fail, ok, warn
from clients.defaults import default_settings
from clients.evaluate import own_bed
from clients.settings import SiteSettings
from clients.site import own_samples, real_site
from fed_fsad import methods
from fed_fsad.data.episodes import Episode, eligible, sample_episode
from fed_fsad.data.samples import Sample
from fed_fsad.errors import DataError, PolicyRefusal
from fed_fsad.methods.method import Method, part_of
from fed_fsad.privacy.policy import Policy, load_policy
from fed_fsad.privacy.training import private_records
from fed_fsad.residents import resident, rows_of, use
from fed_fsad.seeds import numpy_stream


def enough(site: SiteSettings) -> Line:
    """Enough images for every method, and under privacy enough records for its noise; a few images are really tried."""
    policy = load_policy(site.policy)
    use(site.machine)
    if site.role == "predict-only":
        return _evaluation(site, policy)
    able: list[str] = []
    unable: list[str] = []
    settings = default_settings(own_samples(site))
    for name in methods.names():
        if name not in settings:
            unable.append(f"{name}: no bundled sign list knows its task: the run's config must name one")
            continue
        try:
            method = resident(name, settings[name], 0)
            found = _suffices(site, policy, method)
            _try(method, own_samples(site))
            able.append(f"{name}: {found}")
        except (PolicyRefusal, DataError) as error:
            unable.append(f"{name}: {error}")
    if not able:
        return fail("; ".join(unable), "this site would answer every round with a refusal")
    if unable:
        remedy = "see what the run's own settings make of it: fed-fsad site preview --config federation.yaml"
        return warn("; ".join([*able, *unable]), remedy)
    return ok("; ".join(able))


def _suffices(site: SiteSettings, policy: Policy, method: Method) -> str:
    """What the method would train on. Raises PolicyRefusal when it would not."""
    samples = own_samples(site)
    able = len(eligible(samples, method.episode))
    if able <= method.episode.supports:
        least = method.episode.supports + 1
        raise PolicyRefusal("no_images", f"it needs {least} normal train images and there are {able}: add some")
    parts = policy.allowed_parts(method.name, tuple(dict.fromkeys(map(part_of, method.trainable()))))
    if not parts:
        raise PolicyRefusal("method_forbidden", "the policy allows no part of it: list its parts to take part")
    if policy.privacy == "off":
        return f"{able} images"
    records, dims, feasible = private_records(method, parts, samples, policy)
    return f"{len(records)} privacy records for {dims} scalars, noise against signal (rho) {feasible.rho:.2g}"


def _try(method: Method, samples: Sequence[Sample]) -> None:
    """Encode a few images, one of each category, and compute their losses. Raises DataError when that is impossible."""
    few: dict[tuple[str, ...], list[Sample]] = {}
    for i in eligible(samples, method.episode):
        few.setdefault(samples[i].categories, []).append(samples[i])
    least = method.episode.supports + 1
    rows = rows_of(method)([sample for own in few.values() for sample in own[:least]])
    if method.episode.supports:
        episode = sample_episode(rows, method.episode, numpy_stream(0, "check"))
    else:
        every = torch.arange(len(rows))
        episode = Episode(rows, every, every.new_empty((len(rows), 0)), every)
    with torch.no_grad():
        method.losses(episode)


def _evaluation(site: SiteSettings, policy: Policy) -> Line:
    if not policy.release_metrics:
        return fail(
            "a predict-only site sends figures, and the policy releases none",
            "set release_metrics: true in the policy, or take the role train",
        )
    bed = own_bed(real_site(site), 0, ())
    if bed is None:
        return fail("there are no images to evaluate on", "add normal and abnormal images")
    return ok(f"{len(bed.pool)} images to draw supports from, {len(bed.test)} to evaluate on; nothing is trained")
