"""SD-MAD behind the Method contract."""

import hashlib

import torch
from torch import Tensor

from fed_fsad.data.episodes import Episode, EpisodeSpec
from fed_fsad.data.features import Features, Rows
from fed_fsad.data.signs import load_signs
from fed_fsad.errors import DataError
from fed_fsad.methods.method import Method, Scores, SupportBank
from fed_fsad.methods.sdmad.backbone import Backbone, load_backbone
from fed_fsad.methods.sdmad.baselines import category_scores, linear_probe
from fed_fsad.methods.sdmad.loss import sign_loss
from fed_fsad.methods.sdmad.network import SignNetwork
from fed_fsad.methods.sdmad.selection import (
    kept_signs,
    mean_scores,
    reliability,
    sample_scores,
    sign_means,
    sign_shares,
)
from fed_fsad.methods.sdmad.settings import Settings
from fed_fsad.methods.sdmad.vocabulary import SignTable, Vocabulary, build_vocabulary, name_texts


class SdMad(Method):
    """Sign-driven few-shot multi-anomaly detection (Guo et al., arXiv 2505.16659).

    Losses, sign selection and hyper-parameters are reconstructions (ours): no code of the paper is public.
    """

    name = "sdmad"
    protocol = "categories"
    records_per_graph = 64

    def __init__(self, backbone: Backbone, vocabulary: Vocabulary, settings: Settings, seed: int) -> None:
        self._backbone = backbone
        self._settings = settings
        self._vocabulary = vocabulary
        self._trained = vocabulary.without(settings.withheld)
        self._network = SignNetwork(backbone, vocabulary, settings, seed)

    @property
    def image_size(self) -> int:
        """Side of the square input in pixels: the frozen model's own."""
        return self._backbone.image_size

    @property
    def model_id(self) -> str:
        """A hash over frozen weights, transform, and the layer whose input is cached."""
        return hashlib.sha256(f"{self._backbone.fingerprint}/{self._network.cached_layer}".encode()).hexdigest()

    @property
    def episode(self) -> EpisodeSpec:
        """Single labelled images of any task, normal and abnormal."""
        return EpisodeSpec(supports=0, normals_only=False, batch=self._settings.batch)

    def trainable(self) -> dict[str, Tensor]:
        """Context tokens, then text adapters, then image adapters, as far as they are switched on."""
        return self._network.trainable()

    def features(self, images: Tensor) -> Features:
        """Unit "embedding" [N, D] and, with image adapters, "tokens" [N, L, W] entering the first adapted layer."""
        return self._network.features(images)

    def embedding(self, features: Features) -> Tensor:
        """The frozen unit embedding, [N, D]."""
        return features["embedding"]

    def losses(self, episode: Episode) -> Tensor:
        """Stage-1 loss of every query over the categories of its own task, [B].

        Raises DataError for a task or category without signs, or a category withheld from training.
        """
        rows = episode.rows.select(episode.query.tolist())
        images = self._network.image_embeddings(rows.features)
        places: dict[str, list[int]] = {}
        for place, sample in enumerate(rows.samples):
            places.setdefault(sample.task, []).append(place)
        texts = self._network.sign_embeddings([self._trained.task(task) for task in places])
        losses = images.new_zeros(len(rows))
        for task, index in places.items():
            signs = self._trained.task(task)
            present = signs.labels([rows.samples[place].categories for place in index])
            g = sign_means(self._network.logits(images[index], texts[task]), signs.member)
            own = sign_loss(g, present, self._settings.inter_weight)
            losses = losses.index_put((torch.tensor(index),), own)
        return losses

    @torch.no_grad()
    def fit_support(self, support: Rows, task: str) -> SupportBank:
        """The supports' sign logits "z" [K, S] and "labels" [K, M]; with K = 0 the signs speak alone.

        Raises DataError for supports of another task, or of a category without signs.
        """
        signs = self._vocabulary.task(task)
        strangers = sorted({sample.task for sample in support.samples} - {task})
        if strangers:
            raise DataError(f"supports of task {strangers[0]!r} cannot serve task {task!r}; draw them from that task")
        categories = tuple(sample.categories for sample in support.samples)
        z = self._sign_logits(support.features, signs) if len(support) else torch.zeros(0, len(signs.signs))
        tensors = {"z": z, "labels": signs.labels(categories)}
        return SupportBank(task, tuple(sample.id for sample in support.samples), categories, tensors)

    @torch.no_grad()
    def score(self, features: Features, bank: SupportBank) -> Scores:
        """s_m [B, M] of every category in the task's sign list, withheld ones too, and their maximum [B]."""
        signs = self._vocabulary.task(bank.task)
        pool = sample_scores if "sample" in self._settings.selection else mean_scores
        _, kept = self._selection(bank, signs)
        return category_scores(pool(self._sign_logits(features, signs), kept), signs.names)

    def selected_signs(self, bank: SupportBank) -> dict[str, list[tuple[str, float, bool]]]:
        """Per category, "normal" first: each sign, its reliability on the supports (NaN: unknown), whether kept."""
        signs = self._vocabulary.task(bank.task)
        auroc, kept = self._selection(bank, signs)
        return {
            name: [
                (signs.signs[column], float(auroc[row, column]), bool(kept[row, column]))
                for column in signs.member[row].nonzero().squeeze(1).tolist()
            ]
            for row, name in enumerate(("normal", *signs.names))
        }

    @torch.no_grad()
    def sign_evidence(self, features: Features, bank: SupportBank) -> list[dict[str, dict[str, float]]]:
        """Per image and category: the signs that counted, loudest first, and by how much each was above normal's; their
        mean is the category's score.
        """
        signs = self._vocabulary.task(bank.task)
        _, kept = self._selection(bank, signs)
        shares = sign_shares(self._sign_logits(features, signs), kept, "sample" in self._settings.selection)
        found = []
        for image in shares:
            spoken = [
                {signs.signs[i]: float(row[i]) for i in row.argsort(descending=True, stable=True) if not row[i].isnan()}
                for row in image
            ]
            found.append(dict(zip(signs.names, spoken, strict=True)))
        return found

    def baselines(self, features: Features, support: Rows, task: str) -> dict[str, Scores]:
        """The frozen model alone: zero-shot with signs, zero-shot with class names, a linear probe on the supports."""
        signs = self._vocabulary.task(task)
        images = features["embedding"]
        by_sign = self._network.logits(images, self._network.frozen_sign_embeddings(signs))
        by_name = self._network.logits(images, self._network.frozen_text_embeddings(name_texts(signs)))
        shown = support.features["embedding"] if len(support) else images[:0]
        labels = signs.labels([sample.categories for sample in support.samples])
        return {
            "zero_shot": category_scores(mean_scores(by_sign, signs.member), signs.names),
            "zero_shot_names": category_scores(by_name[:, 1:] - by_name[:, :1], signs.names),
            "linear_probe": linear_probe(images, shown, labels, signs.names),
        }

    def _selection(self, bank: SupportBank, signs: SignTable) -> tuple[Tensor, Tensor]:
        """Reliability and kept signs, both [M + 1, S], from the supports alone."""
        auroc = reliability(bank.tensors["z"], bank.tensors["labels"], signs.member)
        chooses = "support" in self._settings.selection
        return auroc, kept_signs(auroc, signs.member, self._settings.kept_signs) if chooses else signs.member

    def _sign_logits(self, features: Features, signs: SignTable) -> Tensor:
        texts = self._network.sign_embeddings([signs])[signs.task]
        return self._network.logits(self._network.image_embeddings(features), texts)


def build(settings: Settings, seed: int) -> SdMad:
    """SD-MAD as the settings describe it. Raises ConfigError or DataError when model, signs and settings do not fit."""
    backbone = load_backbone(settings.model, settings.weights, seed)
    vocabulary = build_vocabulary(load_signs(name) for name in settings.signs)
    return SdMad(backbone, vocabulary, settings, seed)
