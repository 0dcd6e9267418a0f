from cleft_bundle.data.file_trees import FileTree


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
