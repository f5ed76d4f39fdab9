"""The embedded D²4FAD student: what a light student starts from, taught on formula-made families (ours).

No organ is drawn, so that whatever organ a run leaves out is new to it.
"""

import torch
from torch import Tensor, nn

from fed_fsad.data.episodes import Episode
from fed_fsad.data.features import Rows
from fed_fsad.methods.d24fad.detector import D24FAD, TARGETS
from fed_fsad.methods.d24fad.losses import cosine_distances, mean_pairwise_cosine
from fed_fsad.methods.d24fad.settings import Settings
from fed_fsad.methods.d24fad.student import Student
from fed_fsad.methods.d24fad.teacher import Teacher
from fed_fsad.methods.d24fad.weighting import LearnToWeight
from fed_fsad.seeds import derive, numpy_stream
from pretraining.episodes import family_episodes
from pretraining.training import Plan, Point

SETTINGS = Settings(score="d24fad", image_score="max", tsd_weight=20.0)
"""The published score, and a λ at which the teacher leads: at 1 and below all images' features run together."""
PER_FAMILY = 8
UNSEEN = -1
"""A draw that training never makes: its families are what the curve is measured on."""


def student_plan(seed: int, steps: int, teacher: str) -> Plan:
    """The recipe of the embedded student; teacher: SHA-256 of the weights it decodes."""
    return Plan("student", seed, steps, lr=8e-3, weight_decay=1e-2, save_every=200, begun=teacher)


class StudentTraining(nn.Module):
    """Student and learn-to-weight, which are trained, before a teacher, which is not.

    images: of the fixed set, shown again and again in batches of `batch`, a few families each.
    """

    def __init__(self, teacher: Teacher, seed: int, images: int, batch: int) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive(seed, "student", "initialisation"))
            self.student = Student(teacher.anatomy, SETTINGS.norm)
            self.weighting = LearnToWeight(teacher.anatomy.widths[:3], SETTINGS.l2w_scale)
        self._detector = D24FAD(SETTINGS, teacher, self.student, self.weighting, seed)
        self._seed, self._families, self._draws = seed, batch // PER_FAMILY, max(1, images // batch)
        self._drawn: dict[int, Episode] = {}

    def loss(self, step: int) -> Tensor:
        """The method's own loss: every image is query once, two others of its family are its supports."""
        draw = step % self._draws
        if draw not in self._drawn:
            self._drawn[draw] = self._episode(draw)
        return self._detector.losses(self._drawn[draw]).mean()

    @torch.no_grad()
    def watch(self) -> Point:
        """Teacher-student distance and the mean cosine of different images' features, on families never trained on."""
        features = self._episode(UNSEEN).rows.features
        decoded = self.student(features["e4"])
        distance = cosine_distances([features[name] for name in TARGETS], decoded).mean()
        return {"tsd": float(distance), "cosine": mean_pairwise_cosine(decoded)}

    def _episode(self, draw: int) -> Episode:
        drawn = family_episodes(self._seed, draw, self._families, PER_FAMILY, 0, SETTINGS.image_size)
        features = self._detector.features(drawn.pixels.flatten(0, 1))
        rng = numpy_stream(self._seed, "student supports", draw)
        count = self._families * PER_FAMILY
        turns = torch.from_numpy(rng.permuted([range(1, PER_FAMILY)] * count, axis=1)[:, : SETTINGS.supports])
        query = torch.arange(count)
        family, place = query // PER_FAMILY, query % PER_FAMILY
        support = family[:, None] * PER_FAMILY + (place[:, None] + turns) % PER_FAMILY
        return Episode(Rows(features, ()), query, support, query)
