"""From logits of signs to scores of categories: signs kept, pooled, and joined by what the supports look like."""

from dataclasses import dataclass

import torch
from torch import Tensor

from fed_fsad.methods.sdmad.evidence import Probe, fit_probe
from fed_fsad.methods.sdmad.selection import kept_signs, mean_scores, reliability, sample_scores
from fed_fsad.methods.sdmad.settings import Settings


@dataclass(frozen=True)
class Readout:
    """reliability, kept: [M + 1, S], row 0 = normal. sample: whether each image chooses among the kept signs."""

    reliability: Tensor
    kept: Tensor
    sample: bool
    probe: Probe | None

    def signs(self, z: Tensor) -> Tensor:
        """What the signs alone say of each category, [B, M], from logits [B, S]."""
        return (sample_scores if self.sample else mean_scores)(z, self.kept)

    def scores(self, z: Tensor, embeddings: Tensor) -> Tensor:
        """s_m, [B, M], from logits [B, S] and frozen embeddings [B, D]; no image depends on another."""
        scores = self.signs(z)
        return scores if self.probe is None else self.probe.add(scores, embeddings)


def fit_readout(z: Tensor, embeddings: Tensor, labels: Tensor, member: Tensor, settings: Settings) -> Readout:
    """The readout that K supports give: logits z [K, S], frozen embeddings [K, D], labels [K, M]; member [M + 1, S]."""
    auroc = reliability(z, labels, member)
    kept = kept_signs(auroc, member, settings.kept_signs) if "support" in settings.selection else member
    readout = Readout(auroc, kept, "sample" in settings.selection, None)
    if settings.support_evidence == "none" or not labels.any():
        return readout
    return Readout(auroc, kept, readout.sample, fit_probe(readout.signs(z), embeddings, labels))


def left_out_scores(z: Tensor, embeddings: Tensor, labels: Tensor, member: Tensor, settings: Settings) -> Tensor:
    """[K, M]: every support scored by the readout of the others."""
    every = torch.arange(len(z))
    rows = []
    for own in every:
        others = every != own
        readout = fit_readout(z[others], embeddings[others], labels[others], member, settings)
        rows.append(readout.scores(z[own, None], embeddings[own, None])[0])
    return torch.stack(rows) if rows else z.new_zeros(0, labels.shape[1])
