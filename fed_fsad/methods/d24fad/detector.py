"""D²4FAD behind the Method contract."""

import hashlib
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from fed_fsad.data.episodes import Episode, EpisodeSpec
from fed_fsad.data.features import Features, Rows
from fed_fsad.errors import DataError
from fed_fsad.methods.d24fad.backbones import build_teacher
from fed_fsad.methods.d24fad.baselines import nearest_patch, nearest_position, pooled
from fed_fsad.methods.d24fad.losses import cosine_distances, mean_pairwise_cosine
from fed_fsad.methods.d24fad.scoring import combine, position_distance, score_images
from fed_fsad.methods.d24fad.settings import Settings
from fed_fsad.methods.d24fad.student import Student
from fed_fsad.methods.d24fad.teacher import Teacher
from fed_fsad.methods.d24fad.weighting import LearnToWeight
from fed_fsad.methods.method import Method, Protocol, Scores, SupportBank
from fed_fsad.seeds import derive

TARGETS = ("f1", "f2", "f3")
VALUES = ("value1", "value2", "value3")
KEYS = ("key1", "key2", "key3")


class D24FAD(Method):
    """A student that decodes the teacher's deepest stage, taught by the teacher and by normal images of the same task.

    Parts: `affine` (scales and shifts of the student's norms), `kernels` (its convolutions), `weighting` (phi).
    """

    name = "d24fad"
    protocol: ClassVar[Protocol] = "detection"
    records_per_graph = 1

    def __init__(self, settings: Settings, teacher: Teacher, student: Student, weighting: LearnToWeight) -> None:
        self._settings = settings
        self._teacher = teacher
        self._student = student
        self._weighting = weighting
        self._trainable: dict[str, Tensor] = {}
        for owner, module in student.named_modules():
            part = "kernels" if isinstance(module, nn.Conv2d | nn.ConvTranspose2d) else "affine"
            for leaf, parameter in module.named_parameters(recurse=False):
                self._trainable[f"{part}/{owner}.{leaf}"] = parameter
        self._trainable |= {f"weighting/{key}": value for key, value in weighting.named_parameters()}

    @property
    def image_size(self) -> int:
        return self._settings.image_size

    @property
    def model_id(self) -> str:
        return hashlib.sha256(f"d24fad/{self._teacher.hash}/{self.image_size}".encode()).hexdigest()

    @property
    def episode(self) -> EpisodeSpec:
        return EpisodeSpec(supports=self._settings.supports, normals_only=True, batch=self._settings.batch)

    def trainable(self) -> dict[str, Tensor]:
        return dict(self._trainable)

    def features(self, images: Tensor) -> Features:
        """f1, f2, f3 and e4 of [B, 3, S, S]: [B, C_i, S/2^(i+1), S/2^(i+1)], float32."""
        return dict(zip((*TARGETS, "e4"), self._teacher.stages(images), strict=True))

    def losses(self, episode: Episode) -> Tensor:
        """L_ssd + λ L_tsd per query, [B] (D²4FAD); every row is decoded once, queries and supports gather from it."""
        self._student.train()
        tsd, ssd = self._distances(episode, self._student(episode.rows.features["e4"]))
        return ssd + self._settings.tsd_weight * tsd

    @torch.no_grad()
    def fit_support(self, support: Rows, task: str) -> SupportBank:
        """Student features of the supports (values) and their keys: nothing is encoded again when scoring."""
        if not support.samples:
            raise DataError(f"task {task!r} has no support image; give at least one normal image")
        strangers = sum(sample.task != task for sample in support.samples)
        if strangers:
            raise DataError(
                f"{strangers} of {len(support)} supports are not of task {task!r}; take supports of that task"
            )
        abnormal = sum(not sample.is_normal for sample in support.samples)
        if abnormal:
            raise DataError(f"{abnormal} of {len(support)} supports of task {task!r} are abnormal; take normal images")
        self._student.eval()
        values = self._student(support.features["e4"])
        tensors = dict(zip(VALUES + KEYS, (*values, *self._weighting.keys(values)), strict=True))
        return SupportBank(
            task, tuple(s.id for s in support.samples), tuple(s.categories for s in support.samples), tensors
        )

    @torch.no_grad()
    def score(self, features: Features, bank: SupportBank) -> Scores:
        """1 - cos between a query and its weighted support, per position and scale (D²4FAD); map [B, S, S]."""
        if not len(bank):
            raise DataError(f"the support bank of task {bank.task!r} is empty; add at least one normal image")
        self._student.eval()
        batch = len(features["e4"])
        distances = []
        for query, key, value in zip(self._student(features["e4"]), KEYS, VALUES, strict=True):
            keys, values = (bank.tensors[name].expand(batch, *bank.tensors[name].shape) for name in (key, value))
            distances.append(position_distance(query, self._weighting(query, keys, values)))
        return score_images(combine(distances, self.image_size), self._settings.image_score)

    def embedding(self, features: Features) -> Tensor:
        """Pooled teacher stages 1-3, [N, C1 + C2 + C3], of length 1."""
        return pooled(features)

    @torch.no_grad()
    def baselines(self, features: Features, support: Rows, task: str) -> dict[str, Scores]:
        """knn: nearest patch of any support. position_nn: nearest support at the same position."""
        return {
            "knn": nearest_patch(features, support.features, self.image_size),
            "position_nn": nearest_position(features, support.features, self.image_size),
        }

    @torch.no_grad()
    def diagnostics(self, episode: Episode) -> dict[str, float]:
        """Mean L_tsd and L_ssd, and the mean pairwise cosine of student features (above 0.98: collapse)."""
        self._student.eval()
        decoded = self._student(episode.rows.features["e4"])
        tsd, ssd = self._distances(episode, decoded)
        figures = {"loss_tsd": float(tsd.mean()), "loss_ssd": float(ssd.mean())}
        return figures | ({"student_cosine": mean_pairwise_cosine(decoded)} if len(episode.rows) > 1 else {})

    def _distances(self, episode: Episode, decoded: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """L_tsd and L_ssd per query, [B] each, from the student's features of the episode's rows."""
        teacher = [episode.rows.features[name][episode.query] for name in TARGETS]
        queries = [feature[episode.query] for feature in decoded]
        keys = self._weighting.keys(decoded)
        supports = [
            self._weighting(query, key[episode.support], value[episode.support])
            for query, key, value in zip(queries, keys, decoded, strict=True)
        ]
        return cosine_distances(teacher, queries), cosine_distances(queries, supports)


def build(settings: Settings, seed: int) -> D24FAD:
    """The method with its teacher loaded and its student and phi drawn from `seed`; the global RNG stays untouched.

    Raises CheckpointError when the teacher's weights do not fit.
    """
    teacher = build_teacher(settings.teacher, seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(seed, "d24fad", "student"))
        student = Student(teacher.anatomy, settings.norm)
        weighting = LearnToWeight(teacher.anatomy.widths[:3], settings.l2w_scale)
    return D24FAD(settings, teacher, student, weighting)
