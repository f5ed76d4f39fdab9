"""The embedded teacher's network: a residual network of four stages, small enough for a wheel and for a laptop."""

from collections.abc import Sequence

from torch import Tensor, nn

WIDTHS = (24, 48, 96, 192)
BLOCKS = (1, 1, 1, 1)
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
"""ImageNet's, per channel of an image in [0, 1]: what every teacher's input is normalised with, in training too."""


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut (He et al. 2016): [B, inputs, H, W] to [B, width, H/stride, W/stride]."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU()
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != width:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, width, 1, stride, bias=False), nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        return self.relu(y + self.shortcut(x))  # type: ignore[no-any-return]


class SmallResNet(nn.Module):
    """Four stages at strides 4, 8, 16 and 32, as in torchvision's ResNets; S must be a multiple of 32.

    widths: channels of the stages. blocks: BasicBlocks per stage. BatchNorm, because a frozen one in eval mode is a
    per-pixel affine map: a feature then depends on its receptive field alone. The stem's two strided 3x3
    convolutions keep what torchvision's 7x7 and max-pooling lose at 96 px (ours).
    """

    def __init__(self, widths: Sequence[int] = WIDTHS, blocks: Sequence[int] = BLOCKS) -> None:
        super().__init__()
        if len(widths) != 4 or len(blocks) != 4:
            raise ValueError("a SmallResNet has four stages: give four widths and four block counts")
        self.widths = tuple(widths)
        self.stem = nn.Sequential(
            nn.Conv2d(3, widths[0], 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(widths[0]),
            nn.ReLU(),
            nn.Conv2d(widths[0], widths[0], 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(widths[0]),
            nn.ReLU(),
        )
        inputs = (widths[0], *widths[:3])
        self.stages = nn.ModuleList(
            nn.Sequential(
                BasicBlock(i, w, stride=1 if stage == 0 else 2), *(BasicBlock(w, w, stride=1) for _ in range(n - 1))
            )
            for stage, (i, w, n) in enumerate(zip(inputs, widths, blocks, strict=True))
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """[B, 3, S, S], normalised, to f1 .. f4 of [B, C_i, S/2^(i+1), S/2^(i+1)]."""
        f1 = self.stages[0](self.stem(x))
        f2 = self.stages[1](f1)
        f3 = self.stages[2](f2)
        return f1, f2, f3, self.stages[3](f3)
