"""Settings of secure aggregation, and what of a federation goes with it."""

import math

from pydantic import Field

from fed_fsad.data.settings import Settings

SMALLEST = 3
"""Sites in a sum: of two, each could subtract its own update and would see the other's."""
MODULUS = 2**32
"""Sums of steps are taken modulo this."""


class SecureSettings(Settings):
    """How sums are masked."""

    clip_norm: float = Field(
        10.0, gt=0, description="longest update of a site, over everything it sends; in mode hospital that C counts"
    )
    target_range: int = Field(2**22, ge=2, lt=MODULUS, description="steps from -clip_norm to clip_norm")
    reconstruct: float = Field(0.6, gt=0.5, le=1, description="share of the sites that must stay to unmask a sum")
    smallest: int = Field(SMALLEST, ge=SMALLEST, description="sites below which no sum is made, of any part")

    def threshold(self, sites: int) -> int:
        """Shares that unmask a sum of `sites` sites: more than half of them."""
        return max(sites // 2 + 1, math.ceil(self.reconstruct * sites - 1e-9))

    def problem(self, asked: int, *, mean: bool, weighting: str, late: str, adaptive: bool) -> str | None:
        """Why updates cannot be masked in such a federation, in one sentence with a remedy, or None.

        asked: sites per round. mean: whether the strategy sees updates only through their mean.
        """
        if asked < self.smallest:
            return f"needs {self.smallest} hospitals that train in a round and finds {asked}; add hospitals, or set off"
        if asked * self.target_range >= MODULUS:
            return (
                f"would pass its modulus: {asked} hospitals times privacy.secure.target_range must stay below 2^32; "
                f"lower privacy.secure.target_range to {(MODULUS - 1) // asked}"
            )
        if not mean:
            return "leaves the server the mean alone; set federation.strategy.name to fedavg or another that averages"
        if weighting != "equal":
            return "lets nobody check the weight that a site gives itself; set federation.weighting: equal"
        if late != "drop":
            return "makes masks for one round only, so no update can come late; set federation.late: drop"
        if adaptive:
            return "hides how long each update was; set privacy.hospital.clipping: fixed"
        return None
