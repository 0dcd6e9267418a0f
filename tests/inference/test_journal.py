import json
import os

import pytest

from cleft_bundle.errors import BundleError
from cleft_bundle.inference import PredictionJournal
from cleft_bundle.inference.journal import Scored

SETTINGS = {"class_names": ["edema", "no finding"], "model": "abc", "heat_maps": False}


@pytest.fixture
def items(tmp_path):
    listed = []
    for name in ("b", "a", "c"):
        (tmp_path / name).write_text(name)
        listed.append({"image": str(tmp_path / name), "path": name})
    return listed


def begin(tmp_path, items, resume=True, **settings):
    journal = PredictionJournal(tmp_path / "out" / "rows.jsonl", SETTINGS | settings, resume)
    left = [item["path"] for item in journal.pending(items)]
    journal.open()
    return journal, left


def test_rows_are_on_disk_when_append_returns_and_are_not_asked_for_again(tmp_path, items):
    journal, left = begin(tmp_path, items)
    assert left == ["b", "a", "c"]
    journal.append({"a": Scored((0.1, 1 / 3)), "b": Scored(error="truncated")})
    # never closed: the process is killed here
    again, left = begin(tmp_path, items)
    assert left == ["c"]
    again.append({"c": Scored((0.5, 0.5))})
    again.close()
    found = [(path, scored) for path, _, scored in again.rows()]
    assert found == [("b", Scored(error="truncated")), ("a", Scored((0.1, 1 / 3))), ("c", Scored((0.5, 0.5)))]
    lines = [json.loads(line) for line in journal.path.read_text().splitlines()]
    assert lines[0] == SETTINGS
    assert [line["image"] for line in lines[1:]] == ["a", "b", "c"]


@pytest.mark.parametrize("cut", [1, 5, 40])
def test_a_torn_last_line_is_cut_off_and_its_image_scored_again(tmp_path, items, cut, caplog):
    journal, _ = begin(tmp_path, items)
    journal.append({"b": Scored((0.1, 0.9))})
    journal.append({"a": Scored((0.2, 0.8))})
    journal.close()
    content = journal.path.read_bytes()
    journal.path.write_bytes(content[:-cut])
    again, left = begin(tmp_path, items)
    assert left == ["a", "c"]
    assert "torn" in caplog.text
    again.append({"a": Scored((0.2, 0.8))})
    again.close()
    assert journal.path.read_bytes() == content


@pytest.mark.parametrize("length", [0, 3])
def test_a_torn_first_line_begins_anew(tmp_path, items, length):
    journal, _ = begin(tmp_path, items)
    journal.close()
    content = journal.path.read_bytes()
    journal.path.write_bytes(content[:length])
    begin(tmp_path, items)[0].close()
    assert journal.path.read_bytes() == content


def test_zeros_that_a_power_failure_left_are_cut_off(tmp_path, items):
    journal, _ = begin(tmp_path, items)
    journal.append({"b": Scored((0.1, 0.9))})
    journal.close()
    content = journal.path.read_bytes()
    journal.path.write_bytes(content + b"\0" * 100)
    begin(tmp_path, items)[0].close()
    assert journal.path.read_bytes() == content


@pytest.mark.parametrize(("key", "value"), [("model", "abd"), ("class_names", ["edema"]), ("heat_maps", True)])
def test_other_settings_are_an_error_that_says_what_to_do(tmp_path, items, key, value):
    begin(tmp_path, items)[0].close()
    with pytest.raises(BundleError) as caught:
        begin(tmp_path, items, **{key: value})
    assert str(caught.value).endswith(
        f"rows.jsonl holds predictions made with other {key.replace('_', ' ')}: "
        "pass another --output_dir, or --resume false to replace them"
    )
    _, left = begin(tmp_path, items, resume=False, **{key: value})
    assert left == ["b", "a", "c"]


def test_a_changed_file_is_scored_again_and_its_last_row_counts(tmp_path, items):
    journal, _ = begin(tmp_path, items)
    journal.append({"a": Scored(error="truncated"), "b": Scored((0.3, 0.7))})
    journal.close()
    os.utime(tmp_path / "a", ns=(0, 0))
    again, left = begin(tmp_path, items)
    assert left == ["a", "c"]
    again.append({"a": Scored((0.4, 0.6))})
    again.close()
    last = PredictionJournal(journal.path, SETTINGS)
    assert [item["path"] for item in last.pending(items)] == ["c"]
    assert [scored for _, _, scored in last.rows()] == [Scored((0.3, 0.7)), Scored((0.4, 0.6))]


def test_the_same_path_below_another_folder_is_another_image(tmp_path, items):
    journal, _ = begin(tmp_path, items)
    journal.append({"a": Scored((0.4, 0.6))})
    journal.close()
    (tmp_path / "other").mkdir()
    status = (tmp_path / "a").stat()
    (tmp_path / "other" / "a").write_text("a")
    os.utime(tmp_path / "other" / "a", ns=(status.st_atime_ns, status.st_mtime_ns))
    _, left = begin(tmp_path, [{"image": str(tmp_path / "other" / "a"), "path": "a"}])
    assert left == ["a"]


def test_names_are_pseudonyms(tmp_path, items):
    journal, _ = begin(tmp_path, items)
    names = {journal.name(item["path"]) for item in items}
    assert len(names) == 3
    assert all(len(name) == 16 and int(name, 16) for name in names)
    assert journal.file("a") == str(tmp_path / "a")
