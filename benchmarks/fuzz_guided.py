"""Damaged files found by coverage: Atheris looks for inputs that take new ways through the readers.

    pip install 'fed-fsad[fuzz]'
    python -m benchmarks.fuzz_guided --kind .dcm --inputs 20000

Starts from the small valid files of that kind. Ends with a non-zero exit code at the first input that raises anything
but our own clear error, takes more than two minutes, or more memory than the limit; libFuzzer then names its file.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["fed_fsad.data", "pydicom", "nibabel", "tifffile"]):
    from benchmarks.fuzz_readers import MEMORY, SLOWEST_S, read
    from benchmarks.fuzz_seeds import valid_files


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kind", choices=(".png", ".jpg", ".tif", ".dcm", ".nii", ".nii.gz", ".csv"), required=True)
    parser.add_argument("--inputs", type=int, default=20_000)
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="guided"))
    corpus, file = folder / "corpus", folder / f"input{arguments.kind}"
    corpus.mkdir()
    for number, (suffix, content) in enumerate(valid_files(folder)):
        if suffix == arguments.kind:
            (corpus / str(number)).write_bytes(content)

    def one(data: bytes) -> None:
        file.write_bytes(data)
        read(file)

    limits = [f"-runs={arguments.inputs}", f"-rss_limit_mb={MEMORY >> 20}", f"-timeout={SLOWEST_S:.0f}"]
    atheris.Setup([sys.argv[0], *limits, f"-artifact_prefix={folder}/", str(corpus)], one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
