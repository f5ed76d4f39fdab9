"""The embedded D²4FAD teacher: few-shot anomaly detection learned on formula-made families (ours).

Every step shows a few families it has never seen. The features must make the nearest support patch of an altered
place far and that of an unaltered place near, and a light decoder must read textures and outlines from them.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fed_fsad.methods.d24fad.resnet import MEAN, STD, WIDTHS, SmallResNet
from fed_fsad.seeds import derive
from pretraining.episodes import FamilyEpisodes, family_episodes
from pretraining.patches import patch_distance, position_distance
from pretraining.textures import TEXTURES
from pretraining.training import Plan

SIZE = 96
CELLS = 12
SUPPORTS, QUERIES = 4, 4
CLEARLY = 0.3
"""A field counts as altered when more than this share of its pixels is."""


def teacher_plan(seed: int, steps: int) -> Plan:
    """The recipe of the embedded teacher."""
    return Plan("teacher", seed, steps, lr=2e-3, weight_decay=1e-2, save_every=250)


def normalised(pixels: Tensor) -> Tensor:
    """[..., 3, S, S] in 0..1 as the network takes it."""
    return (pixels - pixels.new_tensor(MEAN)[:, None, None]) / pixels.new_tensor(STD)[:, None, None]


def new_network(seed: int) -> SmallResNet:
    """The network before any training; the global random state is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(seed, "teacher", "initialisation"))
        return SmallResNet()


class Judge(nn.Module):
    """Turns distances into log-odds of being altered, and those into a loss."""

    def __init__(self) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(1.5))
        self.place_offset = nn.Parameter(torch.tensor(-2.0))
        self.image_offset = nn.Parameter(torch.tensor(-2.0))

    def forward(self, distance: Tensor, share: Tensor) -> Tensor:
        """distance, share (altered share of each field): [E, Q, h, w]. Where it is altered, plus whether it is."""
        odds = self.log_scale.exp() * distance
        # Fields altered only in part teach little; altered ones are rare, so that each side weighs one half.
        altered, untouched = (share > CLEARLY).float(), (share == 0).float()
        weight = altered / altered.sum().clamp(min=1) + untouched / untouched.sum().clamp(min=1)
        place = F.binary_cross_entropy_with_logits(odds + self.place_offset, altered, weight, reduction="sum") / 2
        strongest = torch.logsumexp(4 * odds.flatten(2), -1) / 4
        whole = F.binary_cross_entropy_with_logits(strongest + self.image_offset, altered.flatten(2).amax(-1))
        return place + whole


class TeacherTraining(nn.Module):
    """The network with the parts that only training needs: a decoder and the calibration of distances."""

    def __init__(self, seed: int, batch: int) -> None:
        super().__init__()
        self.seed, self.episodes = seed, batch // (SUPPORTS + QUERIES)
        self.network = new_network(seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive(seed, "teacher", "decoder"))
            self.lateral = nn.ModuleList(nn.Conv2d(width, 32, 1) for width in WIDTHS)
            self.head = nn.Sequential(nn.GELU(), nn.Conv2d(32, 32, 3, padding=1), nn.GELU())
            self.texture = nn.Conv2d(32, len(TEXTURES), 1)
            self.outline = nn.Conv2d(32, 1, 1)
            self.foreign = nn.Conv2d(32, 1, 1)
        self.patch_judge, self.position_judge = Judge(), Judge()

    def loss(self, step: int) -> Tensor:
        """The step's loss: where each query is altered, whether it is, and the dense targets of every image."""
        device = next(self.parameters()).device
        batch = family_episodes(self.seed, step, self.episodes, SUPPORTS, QUERIES, SIZE).to(device)
        features = self.network(normalised(batch.pixels.flatten(0, 1)))
        episodes = [f.unflatten(0, batch.pixels.shape[:2]) for f in features[:3]]
        return self._alteration_loss(batch, episodes) + 0.5 * self._dense_loss(batch, features)

    def _alteration_loss(self, batch: FamilyEpisodes, features: list[Tensor]) -> Tensor:
        queries, supports = [f[:, SUPPORTS:] for f in features], [f[:, :SUPPORTS] for f in features]
        share = batch.altered_share(CELLS)
        by_patch = self.patch_judge(patch_distance(queries[1:], supports[1:]), share)
        by_position = self.position_judge(position_distance(queries, supports, CELLS), share)
        return by_patch + 0.5 * by_position  # type: ignore[no-any-return]

    def _dense_loss(self, batch: FamilyEpisodes, features: tuple[Tensor, ...]) -> Tensor:
        side = features[0].shape[-1]
        read = [
            F.interpolate(lateral(f), (side, side), mode="bilinear", align_corners=False)
            for lateral, f in zip(self.lateral, features, strict=True)
        ]
        decoded = self.head(torch.stack(read).sum(0))
        stride = SIZE // side
        texture = batch.texture.flatten(0, 1)[:, stride // 2 :: stride, stride // 2 :: stride]
        region = batch.region.flatten(0, 1).unsqueeze(1).float()
        outline = (F.max_pool2d(region, stride) != -F.max_pool2d(-region, stride)).float()
        altered = F.adaptive_avg_pool2d(batch.altered.flatten(0, 1).unsqueeze(1), side)
        return (
            F.cross_entropy(self.texture(decoded), texture)
            + F.binary_cross_entropy_with_logits(self.outline(decoded), outline)
            + 4 * F.binary_cross_entropy_with_logits(self.foreign(decoded), altered)
        )
