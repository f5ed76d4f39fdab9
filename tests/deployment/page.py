"""docs/deployment.md as a test reads it: the shell blocks under each heading, with ports of the test's own."""

import re
from pathlib import Path

PAGE = Path(__file__).resolve().parents[2] / "docs" / "deployment.md"


class Page:
    """The blocks of the page, each to be run once."""

    def __init__(self, ports: dict[str, int]) -> None:
        text = PAGE.read_text(encoding="utf-8")
        for written, own in ports.items():
            text = text.replace(written, str(own))
        self._blocks = {
            heading: found
            for heading, _, body in (part.partition("\n") for part in re.split(r"^#+ ", text, flags=re.MULTILINE))
            if (found := re.findall(r"^```sh\n(.*?)^```$", body, flags=re.MULTILINE | re.DOTALL))
        }

    def take(self, heading: str) -> str:
        """The shell code under a heading; it counts as run from now on."""
        return "".join(self._blocks.pop(heading))

    @property
    def left(self) -> list[str]:
        """Headings whose code nobody ran yet."""
        return list(self._blocks)
