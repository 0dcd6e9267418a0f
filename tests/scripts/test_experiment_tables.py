from tests import processes

TABLE = "# a\\_b\n\nWhat it asks.\n\n|  | seeds |\n| --- | ---: |\n| LoRA | 3 |\n\nMeasured.\nNot all seeds: x.\n"
PAGE = "# Page\n\n<!-- table: a_b -->\nold\n<!-- end -->\nwords\n<!-- table: c -->\n<!-- end -->\n"


def run(root, folder, page):
    return processes.run([str(root / "scripts" / "experiment_tables.py"), str(folder), str(page)], folder)


def test_tables_come_to_their_places_and_one_that_lacks_is_said_to(root, tmp_path):
    (tmp_path / "a_b").mkdir()
    (tmp_path / "a_b" / "table.md").write_text(TABLE)
    (tmp_path / "a_b" / "forest.svg").write_text("<svg/>")
    page = tmp_path / "page.md"
    page.write_text(PAGE)
    done = run(root, tmp_path, page)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "a_b: table\nc: no table yet\n"
    filled = page.read_text()
    assert "|  | seeds |\n| --- | ---: |\n| LoRA | 3 |\n\nMeasured.  \nNot all seeds: x.  \n" in filled
    assert "old" not in filled
    assert "What it asks" not in filled
    assert "<!-- table: c -->\nNot run yet.\n<!-- end -->\n" in filled
    assert (tmp_path / "images" / "experiments" / "a_b.svg").read_text() == "<svg/>"
    run(root, tmp_path, page)
    assert page.read_text() == filled


def test_a_page_without_a_place_is_refused(root, tmp_path):
    (tmp_path / "page.md").write_text("# Page\n")
    done = run(root, tmp_path, tmp_path / "page.md")
    assert done.returncode == 1
    assert "has no place for a table" in done.stderr
