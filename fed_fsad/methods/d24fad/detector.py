"""D²4FAD behind the Method contract."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from fed_fsad.data.episodes import Episode, EpisodeSpec
from fed_fsad.data.features import Features, Rows
from fed_fsad.errors import ConfigError, DataError
from fed_fsad.methods.d24fad.backbones import build_teacher
from fed_fsad.methods.d24fad.baselines import nearest_patch, nearest_position, pooled
from fed_fsad.methods.d24fad.decoding import Decoded, apart, gathered
from fed_fsad.methods.d24fad.light import start, student_parts, weighting_parts
from fed_fsad.methods.d24fad.losses import (
    cosine_distances,
    mean_pairwise_cosine,
    position_distances,
    weighted_distances,
)
from fed_fsad.methods.d24fad.residuals import OF_STUDENT, RESIDUALS, SCORES, WEIGHTED_SUPPORT, View, one_by_one
from fed_fsad.methods.d24fad.residuals import STUDENT as VALUES
from fed_fsad.methods.d24fad.scoring import combine, position_distance, score_images
from fed_fsad.methods.d24fad.settings import Settings
from fed_fsad.methods.d24fad.student import Student
from fed_fsad.methods.d24fad.teacher import Teacher
from fed_fsad.methods.d24fad.weighting import LearnToWeight
from fed_fsad.methods.method import Method, Protocol, Scores, SupportBank
from fed_fsad.seeds import derive

TARGETS = ("f1", "f2", "f3")
FROZEN = (*TARGETS, "e4")
KEYS = ("key1", "key2", "key3")


class D24FAD(Method):
    """A student that decodes the teacher's deepest stage, taught by the teacher and by normal images of the same task.

    Parts: `affine` (scales and shifts of the student's norms), `kernels` (its convolutions; of a light student
    `lowrank`, their updates), `weighting` (phi).
    """

    name = "d24fad"
    protocol: ClassVar[Protocol] = "detection"

    def __init__(
        self, settings: Settings, teacher: Teacher, student: Student, weighting: LearnToWeight, seed: int
    ) -> None:
        self._settings = settings
        self._teacher = teacher
        self._student = student
        self._weighting = weighting
        self._seed = seed
        self._trainable = student_parts(student) | (weighting_parts(weighting) if settings.train_l2w else {})

    @property
    def image_size(self) -> int:
        return self._settings.image_size

    @property
    def model_id(self) -> str:
        return hashlib.sha256(f"d24fad/{self._teacher.hash}/{self.image_size}".encode()).hexdigest()

    @property
    def episode(self) -> EpisodeSpec:
        settings = self._settings
        return EpisodeSpec(
            supports=settings.supports,
            normals_only=True,
            batch=settings.batch,
            mixed=settings.batches == "apart",
            fixed=self._seed if settings.episodes == "fixed" else None,
        )

    def trainable(self) -> dict[str, Tensor]:
        return dict(self._trainable)

    @property
    def silent(self) -> frozenset[str]:
        """Learn-to-weight's biases: they add the same to every support's product, and softmax does not see it."""
        return frozenset(name for name in self._trainable if name.startswith("weighting/") and name.endswith(".bias"))

    @property
    def network(self) -> nn.Module:
        return nn.ModuleList([self._student, self._weighting])

    @property
    def mixes_images(self) -> bool:
        """BatchNorm does, and keeps means of what it saw."""
        return self._settings.norm == "batch"

    def to(self, device: torch.device) -> None:
        super().to(device)
        for part in (self._teacher, self._student, self._weighting):
            part.to(device)

    def features(self, images: Tensor) -> Features:
        """f1, f2, f3 and e4 of [B, 3, S, S]: [B, C_i, S/2^(i+1), S/2^(i+1)], float32.

        Raises DataError for images of another size.
        """
        if images.shape[-2:] != (self.image_size, self.image_size):
            height, width = images.shape[-2:]
            raise DataError(f"an image of {width} x {height} pixels reached a detector of {self.image_size}; resize it")
        return dict(zip((*TARGETS, "e4"), self._teacher.stages(images), strict=True))

    def losses(self, episode: Episode) -> Tensor:
        """L_ssd + λ L_tsd per query, [B] (D²4FAD)."""
        self._student.train()
        stop = self._settings.stop_gradient
        if self._settings.batches == "apart":
            decoded = apart(self._student, self._weighting, episode, stop)
        else:
            decoded = gathered(self._student(episode.rows.features["e4"]), self._weighting, episode, stop)
        tsd, ssd = self._distances(episode, decoded)
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
        tensors = {name: support.features[name] for name in FROZEN}
        tensors |= {} if self._adopts else self._encoded(tensors["e4"])
        return SupportBank(
            task, tuple(s.id for s in support.samples), tuple(s.categories for s in support.samples), tensors
        )

    @torch.no_grad()
    def score(self, features: Features, bank: SupportBank) -> Scores:
        """What a query differs in from its supports, by the residuals of the `score` setting; map [B, S, S]."""
        settings = self._settings
        return score_images(self.maps(features, bank, SCORES[settings.score]), settings.image_score)

    @torch.no_grad()
    def support_scores(self, bank: SupportBank) -> Tensor | None:
        """Every support as a query against the others, [K]; None when there are no others."""
        if len(set(bank.ids)) < 2:
            return None
        queries = one_by_one({name: bank.tensors[name] for name in FROZEN})
        alone = (self.score(query, bank.remove([name])) for query, name in zip(queries, bank.ids, strict=True))
        return torch.cat([scores.image for scores in alone])

    @torch.no_grad()
    def support_weights(self, features: Features, bank: SupportBank) -> Tensor:
        """How much each support counts for each query: learn-to-weight's w, the mean of its three scales, [B, K]."""
        query, support = self._views(features, bank.tensors, (WEIGHTED_SUPPORT,))
        scales = [(query[value], support[key]) for key, value in zip(KEYS, VALUES, strict=True)]
        weights = [self._weighting.weights(own, keys.expand(len(own), *keys.shape)) for own, keys in scales]
        return torch.stack(weights).mean(dim=0)

    @torch.no_grad()
    def score_at_once(self, features: Features, tensors: Mapping[str, Tensor]) -> Scores:
        """`score` against a bank's tensors, all queries together: what a graph for other programs computes."""
        residuals = SCORES[self._settings.score]
        query, support = self._views(features, tensors, residuals)
        return score_images(self.anomaly_map(query, support, residuals), self._settings.image_score)

    def embedding(self, features: Features) -> Tensor:
        """Pooled teacher stages 1-3, [N, C1 + C2 + C3], of length 1."""
        return pooled(features)

    @torch.no_grad()
    def baselines(self, features: Features, support: Rows, task: str) -> dict[str, Scores]:
        """knn: nearest patch of any support. position_nn: nearest support at the same position. fused: what needs no
        training, beside D²4FAD's own score; published: D²4FAD's own, of the student as it is now, beside any other.
        """
        bank = self.fit_support(support, task)
        if self._settings.score == "d24fad":
            other = {"fused": score_images(self.maps(features, bank, SCORES["fused"]), "topk")}
        else:
            other = {"published": score_images(self.maps(features, bank, SCORES["d24fad"]), "max")}
        return {
            "knn": nearest_patch(features, support.features, self.image_size),
            "position_nn": nearest_position(features, support.features, self.image_size),
            **other,
        }

    @torch.no_grad()
    def diagnostics(self, episode: Episode) -> dict[str, float]:
        """Mean L_tsd and L_ssd, and the mean pairwise cosine of student features (above 0.98: collapse)."""
        e4 = episode.rows.features["e4"]
        self._settle(e4)
        decoded = self._student(e4)
        tsd, ssd = self._distances(episode, gathered(decoded, self._weighting, episode))
        figures = {"loss_tsd": float(tsd.mean()), "loss_ssd": float(ssd.mean())}
        return figures | ({"student_cosine": mean_pairwise_cosine(decoded)} if len(episode.rows) > 1 else {})

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """As Method.load; BatchNorm's running statistics, which belong to what was there before, are forgotten."""
        super().load(tensors)
        self._student.forget()

    @property
    def _adopts(self) -> bool:
        """Whether BatchNorm takes its statistics from the supports: they then are decoded anew for every bank."""
        return self._settings.norm == "batch" and self._settings.statistics == "supports"

    def _settle(self, e4: Tensor) -> None:
        """Into eval mode. Raises ConfigError when BatchNorm should use statistics that nothing here has made."""
        if self._adopts:
            self._student.adopt(e4)
        elif not self._student.has_statistics:
            raise ConfigError("BatchNorm has no running statistics here, they never travel; set statistics: supports")
        self._student.eval()

    def _encoded(self, e4: Tensor) -> dict[str, Tensor]:
        """The supports' student features (values) and keys, per scale [K, C, H, W]."""
        self._settle(e4)
        values = self._student(e4)
        return dict(zip(VALUES + KEYS, (*values, *self._weighting.keys(values)), strict=True))

    def maps(self, features: Features, bank: SupportBank, residuals: Sequence[str]) -> Tensor:
        """The anomaly maps of [B, ...] queries, [B, S, S]."""
        if not len(bank):
            raise DataError(f"the support bank of task {bank.task!r} is empty; add at least one normal image")
        if features["e4"].shape[1:] != bank.tensors["e4"].shape[1:]:
            raise DataError("queries and supports are of different sizes; encode both at the same image_size")
        query, support = self._views(features, bank.tensors, residuals)
        return torch.cat([self.anomaly_map(image, support, residuals) for image in one_by_one(query)])

    def _views(
        self, features: Features, tensors: Mapping[str, Tensor], residuals: Sequence[str]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Queries and supports as the residuals want them, with the student's features where one asks."""
        query, support = dict(features), dict(tensors)
        if OF_STUDENT & set(residuals):
            support |= self._encoded(support["e4"]) if self._adopts else {}
            self._student.eval()
            query |= dict(zip(VALUES, self._student(query["e4"]), strict=True))
        return query, support

    def anomaly_map(self, query: View, support: View, residuals: Sequence[str]) -> Tensor:
        """The sum of the residuals' maps, [B, S, S]; both sides also hold the student's features where one asks."""
        distances = []
        for name in residuals:
            made = self._weighted(query, support) if name == WEIGHTED_SUPPORT else RESIDUALS[name](query, support)
            distances += made
        return combine(distances, self.image_size)

    def _weighted(self, query: View, support: View) -> list[Tensor]:
        """1 - cos between a query and its weighted support, per position and scale (D²4FAD): per scale [B, H, W]."""
        distances = []
        for key, value in zip(KEYS, VALUES, strict=True):
            batch = len(query[value])
            keys, values = (support[name].expand(batch, *support[name].shape) for name in (key, value))
            distances.append(self._residual(query[value], keys, values))
        return distances

    def _residual(self, query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """One scale: the distance of a query [B, C, H, W] from its supports at every position, [B, H, W]."""
        if self._settings.weights_on == "features":
            return position_distance(query, self._weighting(query, keys, values))
        each = torch.stack([position_distance(query, values[:, k]) for k in range(values.shape[1])], dim=1)
        return torch.einsum("bk,bkhw->bhw", self._weighting.weights(query, keys), each)

    def _distances(self, episode: Episode, decoded: Decoded) -> tuple[Tensor, Tensor]:
        """L_tsd and L_ssd per query, [B] each."""
        settings = self._settings
        teacher = [episode.rows.features[name][episode.query] for name in TARGETS]
        tsd = (cosine_distances if settings.tsd_form == "flat" else position_distances)(teacher, decoded.queries)
        scales = zip(decoded.queries, decoded.keys, decoded.values, strict=True)
        if settings.weights_on == "distances":
            parts = [weighted_distances(q, values, self._weighting.weights(q, keys)) for q, keys, values in scales]
            return tsd, torch.stack(parts).sum(dim=0)
        supports = [self._weighting(query, keys, values) for query, keys, values in scales]
        return tsd, cosine_distances(decoded.queries, supports)


def build(settings: Settings, seed: int) -> D24FAD:
    """The method with its teacher loaded and its student and phi drawn from `seed`; the global RNG stays untouched.

    Raises CheckpointError when weights do not fit.
    """
    teacher = build_teacher(settings.teacher, seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(seed, "d24fad", "student"))
        student = Student(teacher.anatomy, settings.norm)
        weighting = LearnToWeight(teacher.anatomy.widths[:3], settings.l2w_scale)
        start(settings, student, weighting)
    return D24FAD(settings, teacher, student, weighting, seed)
