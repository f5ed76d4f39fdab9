"""The picture of who was dealt what."""

import re
from pathlib import Path

import pytest

from fed_fsad.errors import DataError
from fed_fsad.evaluation.report.shares import Share, picture, read_shares

HEAD = "id,hospital,use,task,label,true_label,origin\n"
ROWS = ("1,b,train,oct,,,", "2,b,train,oct,,drusen,", "3,b,test,oct,,,", "4,a,train,eye,x;y,x;y,", "5,b,train,oct,,,")


def test_train_images_are_counted_by_hospital_and_given_label(tmp_path: Path) -> None:
    (tmp_path / "partition.csv").write_text(HEAD + "\n".join(ROWS))
    found = read_shares(tmp_path / "partition.csv")
    assert found == (Share("a", "eye", "x;y", 1, 0), Share("b", "oct", "", 3, 1))
    chart = picture(found, "shares")
    assert chart is not None
    assert chart.sheet.rows == (("a", "eye", "x;y", 1, 0), ("b", "oct", "normal", 3, 1))
    assert all(text in chart.svg for text in ("eye: x + y", "oct: normal", ">a<", ">b<"))
    assert [key.label for key in chart.keys] == ["images", "wrong labels among them"]
    assert chart.note == "largest bubble: 3 images"


def test_many_hospitals_lose_their_names_and_right_labels_their_ring() -> None:
    chart = picture([Share(f"site-{i:02d}", "oct", "", 2, 0) for i in range(40)], "shares")
    assert chart is not None
    assert "site-07" not in chart.svg
    few = picture([Share(f"site-{i:02d}", "oct", "", 2, 0) for i in range(12)], "shares")
    assert few is not None
    widths = [int(re.findall(r'viewBox="0 0 (\d+)', one.svg)[0]) for one in (few, chart)]
    assert widths == [400, 850], "half the page, and all of it"
    assert [key.label for key in chart.keys] == ["images"]


def test_no_partition_no_picture_and_a_damaged_one_is_named(tmp_path: Path) -> None:
    assert read_shares(tmp_path / "partition.csv") == ()
    assert picture((), "shares") is None
    (tmp_path / "partition.csv").write_text("id,hospital\n1,a\n")
    with pytest.raises(DataError, match=r"partition\.csv is damaged; resume or repeat the run"):
        read_shares(tmp_path / "partition.csv")
