"""Where training runs: on a GPU when there is one, else on the processor; half-precision products on both."""

import torch

CPU = torch.device("cpu")


def best_device() -> torch.device:
    """The accelerator if there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def half_products(device: torch.device) -> torch.autocast:
    """Products in bfloat16, sums and weights in float32."""
    return torch.autocast(device.type, torch.bfloat16)
