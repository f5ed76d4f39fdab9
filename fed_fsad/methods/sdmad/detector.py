"""SD-MAD behind the Method contract."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from fed_fsad.data.episodes import Episode, EpisodeSpec
from fed_fsad.data.features import Features, Rows
from fed_fsad.data.samples import Sample
from fed_fsad.data.signs import load_signs
from fed_fsad.errors import DataError
from fed_fsad.methods.method import Method, Scores, SupportBank, part_of
from fed_fsad.methods.sdmad.backbone import Backbone, load_backbone
from fed_fsad.methods.sdmad.baselines import category_scores, linear_probe
from fed_fsad.methods.sdmad.context import tensor_name
from fed_fsad.methods.sdmad.loss import sign_loss
from fed_fsad.methods.sdmad.network import SignNetwork
from fed_fsad.methods.sdmad.probability import Calibration, fit_calibration
from fed_fsad.methods.sdmad.readout import Readout, fit_readout, left_out_scores
from fed_fsad.methods.sdmad.selection import mean_scores, sign_means, sign_shares
from fed_fsad.methods.sdmad.settings import Settings
from fed_fsad.methods.sdmad.vocabulary import SignTable, Vocabulary, build_vocabulary, name_texts


class SdMad(Method):
    """Sign-driven few-shot multi-anomaly detection (Guo et al., arXiv 2505.16659).

    Losses, sign selection and hyper-parameters are reconstructions (ours): no code of the paper is public.
    """

    name = "sdmad"
    protocol = "categories"

    def __init__(self, backbone: Backbone, vocabulary: Vocabulary, settings: Settings, seed: int) -> None:
        self._backbone = backbone
        self._settings = settings
        self._vocabulary = vocabulary
        self._trained = vocabulary.without(settings.withheld)
        self._network = SignNetwork(backbone, vocabulary, settings, seed)
        self._held: Mapping[str, Tensor] = {}
        self._names: dict[str, Tensor] = {}

    @property
    def image_size(self) -> int:
        """Side of the square input in pixels: the frozen model's own."""
        return self._backbone.image_size

    @property
    def model_id(self) -> str:
        """A hash over frozen weights, transform, and the layer whose input is cached."""
        return hashlib.sha256(f"{self._backbone.fingerprint}/{self._network.cached_layer}".encode()).hexdigest()

    @property
    def texts_id(self) -> str:
        """A hash over all texts, whose context they are read with, and which categories they belong to."""
        return self._vocabulary.digest

    @property
    def episode(self) -> EpisodeSpec:
        """Single labelled images of any task, normal and abnormal."""
        return EpisodeSpec(supports=0, normals_only=False, batch=self._settings.batch)

    def trainable(self) -> dict[str, Tensor]:
        """Context tokens, then text adapters, then image adapters, as far as they are switched on."""
        return self._network.trainable()

    def untouched(self, samples: Sequence[Sample]) -> frozenset[str]:
        """Contexts of categories, tasks or modalities that no image shows.

        Raises DataError for a task or category without signs, or a category withheld from training.
        """
        met: set[str] = set()
        for sample in samples:
            signs = self._trained.task(sample.task)
            shown = signs.labels([sample.categories])[0].tolist()
            met |= {own for own, there in zip(signs.contexts, [True, *shown], strict=True) if there}
        contexts = {name for name in self.trainable() if part_of(name) == "context"}
        return frozenset(contexts - {tensor_name(owner) for owner in met})

    def to(self, device: torch.device) -> None:
        """What is trained and the frozen model; lists of signs and their logits stay on the CPU."""
        super().to(device)
        self._backbone.model.to(device)
        for tensor in (self._backbone.mean, self._backbone.std, *self._network.constants):
            tensor.data = tensor.data.to(device)

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
        texts = self._held or self._network.sign_embeddings([self._trained.task(task) for task in places])
        losses = images.new_zeros(len(rows))
        for task, index in places.items():
            signs = self._trained.task(task)
            present = signs.labels([rows.samples[place].categories for place in index]).to(images.device)
            g = sign_means(self._network.logits(images[index], texts[task]), signs.member)
            own = sign_loss(g, present, self._settings.inter_weight)
            losses = losses.index_put((torch.tensor(index),), own)
        return losses

    @contextmanager
    def shared(self, samples: Sequence[Sample]) -> Iterator[Sequence[tuple[Tensor, Tensor]]]:
        """The sign embeddings of the samples' tasks: the text tower runs forward once."""
        tasks = [self._trained.task(task) for task in dict.fromkeys(sample.task for sample in samples)]
        texts = self._network.sign_embeddings(tasks)
        self._held = {task: embeddings.detach().requires_grad_() for task, embeddings in texts.items()}
        try:
            yield [(outcome, self._held[task]) for task, outcome in texts.items() if outcome.requires_grad]
        finally:
            self._held = {}

    @torch.no_grad()
    def fit_support(self, support: Rows, task: str) -> SupportBank:
        """The supports' sign logits "z" [K, S], frozen "embedding" [K, D] and "labels" [K, M]; with K = 0 the signs
        speak alone.

        Raises DataError for supports of another task, or of a category without signs.
        """
        signs = self._vocabulary.task(task)
        strangers = sorted({sample.task for sample in support.samples} - {task})
        if strangers:
            raise DataError(f"supports of task {strangers[0]!r} cannot serve task {task!r}; draw them from that task")
        categories = tuple(sample.categories for sample in support.samples)
        z, embedding = torch.zeros(0, len(signs.signs)), self._network.frozen_sign_embeddings(signs)[:0].cpu()
        if len(support):
            z, embedding = self._sign_logits(support.features, signs), support.features["embedding"].cpu()
        tensors = {"z": z, "embedding": embedding, "labels": signs.labels(categories)}
        return SupportBank(task, tuple(sample.id for sample in support.samples), categories, tensors)

    @torch.no_grad()
    def score(self, features: Features, bank: SupportBank) -> Scores:
        """s_m [B, M] of every category in the task's sign list, withheld ones too, and their maximum [B]."""
        (scores,) = self.score_all(features, [bank])
        return scores

    @torch.no_grad()
    def score_all(self, features: Features, banks: Sequence[SupportBank]) -> list[Scores]:
        """As `score` with each bank; both towers run once per task, not per bank."""
        embeddings, logits = features["embedding"].cpu(), dict[str, Tensor]()
        scores = []
        for bank in banks:
            signs = self._vocabulary.task(bank.task)
            if bank.task not in logits:
                logits[bank.task] = self._sign_logits(features, signs)
            found = self._readout(bank, signs).scores(logits[bank.task], embeddings)
            scores.append(category_scores(found, signs.names))
        return scores

    def probabilities(self, scores: Scores, bank: SupportBank) -> Tensor:
        """How likely each category is present, [B, M], where categories are as common as among the bank's images.

        scores: of `score` with the same bank. Calibrated on the supports, each scored by the others.
        """
        assert scores.categories is not None
        return self._calibration(bank).probabilities(scores.categories)

    def thresholds(self, bank: SupportBank) -> Tensor:
        """The score of each category above which it is more likely present than not, [M]."""
        return self._calibration(bank).thresholds

    def selected_signs(self, bank: SupportBank) -> dict[str, list[tuple[str, float, bool]]]:
        """Per category, "normal" first: each sign, its reliability on the supports (NaN: unknown), whether kept."""
        signs = self._vocabulary.task(bank.task)
        readout = self._readout(bank, signs)
        return {
            name: [
                (signs.signs[column], float(readout.reliability[row, column]), bool(readout.kept[row, column]))
                for column in signs.member[row].nonzero().squeeze(1).tolist()
            ]
            for row, name in enumerate(("normal", *signs.names))
        }

    @torch.no_grad()
    def sign_evidence(self, features: Features, bank: SupportBank) -> list[dict[str, dict[str, float]]]:
        """Per image and category: the signs that counted, loudest first, and by how much each was above normal's.

        Their mean is the category's score, less what the look of the supports adds to it.
        """
        signs = self._vocabulary.task(bank.task)
        readout = self._readout(bank, signs)
        shares = sign_shares(self._sign_logits(features, signs), readout.kept, readout.sample)
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
        by_sign = self._network.logits(images, self._network.frozen_sign_embeddings(signs)).cpu()
        by_name = self._network.logits(images, self._named(signs).to(images.device))
        shown = support.features["embedding"] if len(support) else images[:0]
        labels = signs.labels([sample.categories for sample in support.samples])
        speaks = {"zero_shot": category_scores(mean_scores(by_sign, signs.member), signs.names)}
        return {
            **(speaks if self._settings.signs_as == "signs" else {}),
            "zero_shot_names": category_scores(by_name[:, 1:] - by_name[:, :1], signs.names),
            "linear_probe": linear_probe(images.cpu(), shown.cpu(), labels, signs.names),
        }

    def _named(self, signs: SignTable) -> Tensor:
        """Frozen embeddings of a task's class names, "normal" first, [1 + M, D]; made once."""
        if signs.task not in self._names:
            texts = name_texts(signs.modality, signs.names)
            self._names[signs.task] = self._network.frozen_text_embeddings(texts).cpu()
        return self._names[signs.task]

    def _readout(self, bank: SupportBank, signs: SignTable) -> Readout:
        own = bank.tensors
        return fit_readout(own["z"], own["embedding"], own["labels"], signs.member, self._settings)

    def _calibration(self, bank: SupportBank) -> Calibration:
        own, member = bank.tensors, self._vocabulary.task(bank.task).member
        scores = left_out_scores(own["z"], own["embedding"], own["labels"], member, self._settings)
        return fit_calibration(scores, own["labels"])

    def _sign_logits(self, features: Features, signs: SignTable) -> Tensor:
        texts = self._network.sign_embeddings([signs])[signs.task]
        return self._network.logits(self._network.image_embeddings(features), texts).cpu()


def build(settings: Settings, seed: int) -> SdMad:
    """SD-MAD as the settings describe it. Raises ConfigError or DataError when model, signs and settings do not fit."""
    backbone = load_backbone(settings.model, settings.weights, seed, settings.image_size)
    books = [load_signs(name) for name in settings.signs]
    vocabulary = build_vocabulary(books, settings.context, settings.signs_as, settings.withheld)
    return SdMad(backbone, vocabulary, settings, seed)
