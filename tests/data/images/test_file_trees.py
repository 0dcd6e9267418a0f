import os

import pytest

from cleft_bundle.data.images.file_trees import FileTree, walk


def tree(root, *files):
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).touch()
    return FileTree(root)


def test_files_are_found_by_their_trailing_parts(tmp_path):
    files = tree(tmp_path, "images/c1/p/a.dcm", "images/c1/q/a.dcm", "tables/t.csv", ".hidden/a.dcm")
    assert sorted(files.files) == ["images/c1/p/a.dcm", "images/c1/q/a.dcm", "tables/t.csv"]
    assert files.locate(["/mnt/anon/c1/q/a.dcm", "./images/c1/p/a.dcm", "p\\a.dcm"]) == [
        "images/c1/q/a.dcm", "images/c1/p/a.dcm", "images/c1/p/a.dcm"
    ]  # fmt: skip


def test_a_bare_name_must_be_the_only_one(tmp_path):
    files = tree(tmp_path, "x/a.dcm", "y/a.dcm", "y/b.dcm")
    assert files.locate(["a.dcm", "b.dcm"]) == ["a.dcm", "y/b.dcm"]


def test_a_file_that_is_not_there_is_named_as_its_neighbours_are(tmp_path):
    files = tree(tmp_path, "images/c1/p/a.dcm", "other/z.dcm")
    assert files.locate(["/mnt/c1/p/a.dcm", "/mnt/c1/p/b.dcm", "/mnt/z.dcm"]) == [
        "images/c1/p/a.dcm", "images/c1/p/b.dcm", "images/z.dcm"
    ]  # fmt: skip


def test_links_are_followed_and_need_not_end(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "disk" / "a.dcm").touch()
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "images").symlink_to(tmp_path / "disk")
    (tmp_path / "disk" / "above").symlink_to(tmp_path / "set")
    assert list(FileTree(tmp_path / "set").files) == ["images/a.dcm"]
    assert FileTree(tmp_path / "none").files == {}


@pytest.fixture
def linked(tmp_path):
    """A folder with every kind of link: to folders within, above and beside it, to files, to itself and to nothing."""
    root, disk = tmp_path / "root", tmp_path / "disk"
    tree(root, "z/own.dcm", "z/deep/b.dcm", ".hidden/c.dcm", ".d.dcm")
    tree(disk, "far.dcm")
    for name, target in {
        **{"a_link_to_z": root / "z", "disk_1": disk, "disk_2": disk, "up": root, "z/around": root / "z"},
        **{"first.dcm": root / "z" / "own.dcm", "far_1.dcm": disk / "far.dcm", "none.dcm": tmp_path / "none"},
        "self.dcm": root / "self.dcm",
    }.items():
        (root / name).symlink_to(target)
    os.mkfifo(root / "pipe.dcm")
    return root


def test_a_walk_ends_and_enters_each_folder_once_at_its_own_place(linked):
    found = walk(linked)
    assert list(found.files) == [
        *("disk_1/far.dcm", "far_1.dcm", "first.dcm", "z/deep/b.dcm", "z/own.dcm"),
    ]
    assert found.left_out == {
        **{"hidden": 2, "links that lead nowhere": 2, "of another kind than files": 1},
        "further links to a folder": 4,  # a_link_to_z, disk_2, up and around
    }
    assert found.told().startswith("4 further links to a folder, 2 ")


def test_a_file_keeps_the_name_of_its_own_place(linked):
    found = walk(linked).once()
    assert list(found.files) == ["disk_1/far.dcm", "z/deep/b.dcm", "z/own.dcm"]
    assert found.left_out["further links to a file"] == 2
    assert sorted(FileTree(linked).files) == list(walk(linked).files)  # a table may name any of them


def test_patterns_are_left_out_and_counted(linked):
    found = walk(linked, ["far*", "own.dcm"])
    assert list(found.files) == ["first.dcm", "z/deep/b.dcm"]
    assert (found.left_out["named far*"], found.left_out["named own.dcm"]) == (2, 1)


def test_a_folder_that_cannot_be_read_is_counted(tmp_path, monkeypatch):
    tree(tmp_path, "closed/a.dcm", "b.dcm")
    scan = os.scandir

    def scandir(folder):
        if os.path.basename(folder) == "closed":
            raise PermissionError
        return scan(folder)

    monkeypatch.setattr(os, "scandir", scandir)
    found = walk(tmp_path)
    assert (list(found.files), found.left_out) == (["b.dcm"], {"folders that cannot be read": 1})


def test_what_a_tree_leaves_out_is_logged_without_a_name(linked, caplog):
    caplog.set_level("INFO")
    FileTree(linked)
    assert f"{linked}: 5 files; left out: 4 further links to a folder" in caplog.text
    assert "far" not in caplog.text.replace(str(linked), "")
