import pytest
from monai.bundle import ConfigParser

from cleft_bundle.experiments import Places, Plan, read_experiment

SETS = {
    "cxr_kermany": "image,finding,patient_id,split\na.png,no finding,1,train\n",
    "nih448": "image,finding,patient_id\na.png,Edema|Pneumonia,1\n",
    "cxr_text": "image,finding,patient_id,text\na.png,COVID-19,1,Clear.\nb.png,Lipoid,2,Opaque.\n",
    "mias": "image,finding,density,patient_id,laterality,view\na.jpg,normal,fatty,1,R,MLO\n",
}
NAMES = (
    "free_text",
    "image_tower",
    "mammograms_abnormality",
    "mammograms_density",
    "nih448_pneumonia",
    "positives",
    "prompts",
    "recipe",
    "text_tower",
)


def test_all_of_them_are_tested(root):
    assert [path.stem for path in sorted((root / "configs" / "experiments").glob("*.json"))] == list(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_every_run_of_it_can_be_put_together(root, tmp_path, name):
    for folder, text in SETS.items():
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "labels.csv").write_text(text)
    experiment = read_experiment(root / "configs" / "experiments" / f"{name}.json")
    assert experiment.name == name
    assert len(experiment.seeds) >= (5 if name.startswith("mammograms") else 2 if name == "recipe" else 3)
    plan = Plan(experiment, Places(root, tmp_path / "out", str(tmp_path), str(tmp_path)))
    for job in [job for job in plan.jobs.values() if job.seed == experiment.seeds[0]]:
        job.write_settings()
        parser = ConfigParser()
        parser.read_config([*(str(root / file) for file in job.files), str(job.folder / "settings.json")])
        assert job.run in parser
        for key, value in job.settings.items():
            if not isinstance(value, str | list | dict):
                assert parser[key] == value
