import pytest

from cleft_bundle.commands.preview import items_of
from cleft_bundle.data.captions.preview import preview
from cleft_bundle.errors import BundleError
from tests import processes
from tests.conftest import ROOT

CONFIGS = [str(ROOT / "configs" / name) for name in ("train.json", "data_folder.json")]
ITEMS = [
    {
        "name": "a.png",
        "caption": "a left cc view",
        "captions": ["a left cc view", "a cc view"],
        "findings": {"mass": 1.0, "edema": 0.0, "scar": 1.0},
        "view": "CC",
        "laterality": "L",
        "patient_id": "secret",
        "age": 41.0,
    },
    {"name": "b.png", "caption": "a chest", "patient_id": "secret"},
]


@pytest.fixture
def folder(tmp_path):
    rows = [f"{number}.png,{('edema', 'fracture')[number % 2]},PA,secret{number}" for number in range(50)]
    (tmp_path / "labels.csv").write_text("\n".join(["image,finding,view,patient_id", *rows]))
    return tmp_path


def test_captions_stand_beside_their_rows():
    assert preview(ITEMS) == (
        "2 of 2 items\n\n"
        "1  a.png\n   row:     findings mass, scar; view CC; side L\n"
        "   caption: a left cc view\n   caption: a cc view\n\n"
        "2  b.png\n   row:     -\n   caption: a chest"
    )


def test_the_seed_decides_and_the_items_come_in_their_order():
    items = [{"name": f"{number:03d}.png", "caption": "x"} for number in range(100)]
    texts = {preview(items, seed=seed) for seed in (0, 0, 1)}
    assert len(texts) == 2
    for text in texts:
        names = [line.split()[1] for line in text.splitlines() if line.endswith(".png")]
        assert len(names) == 20
        assert names == sorted(names)


def test_items_come_from_the_config(folder):
    items = items_of(CONFIGS, {"dataset_dir": str(folder), "caption_template": "a chest with {findings}"})
    assert [item["caption"] for item in items[:2]] == ["a chest with edema", "a chest with fracture"]


@pytest.mark.parametrize(
    ("files", "override", "words"),
    [
        (["none.json"], {}, "no file 'none.json'"),
        (CONFIGS, {}, "dataset_dir is not set"),
        (CONFIGS, {"dataset_dirr": "x"}, "did you mean 'dataset_dir'?"),
        ([str(ROOT / "configs" / "prompts" / "rsna.json")], {}, "define no 'items'"),
    ],
)
def test_what_is_wrong_is_named(files, override, words):
    with pytest.raises(BundleError) as caught:
        items_of(files, override)
    assert words in str(caught.value)


@pytest.mark.slow
def test_the_command_prints_twenty_captions(folder, tmp_path):
    command = ["-m", "cleft_bundle", "preview", "--config_file", str(CONFIGS)]
    done = processes.run([*command, "--dataset_dir", str(folder)], tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("20 of 50 items\n")
    assert done.stdout.count("   caption: this is a chest x ray of a patient with ") == 20
    assert "secret" not in done.stdout
