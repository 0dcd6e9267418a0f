import pytest

from cleft_bundle.data import phantoms
from tests import processes


@pytest.mark.slow
def test_data_are_described_from_any_working_directory(root, tmp_path):
    phantoms.chest(str(tmp_path), patients=20)
    (data,) = tmp_path.iterdir()
    options = ["--dataset_dir", str(data), "--report_path", "page.html", "--tracking_uri", ""]
    command = ["-m", "cleft_bundle", "describe"]
    done = processes.run([*command, "--config_file", str(root / "configs" / "train.json"), *options], tmp_path)
    assert done.returncode == 0, done.stderr
    assert "<h1>chest phantoms</h1>" in (tmp_path / "page.html").read_text()
    done = processes.run([*command, "--dataset_dir", str(data), "--batch_sise", "3"], root)
    assert done.returncode == 2
    assert done.stderr.strip().splitlines()[-1].startswith("error: unknown config id 'batch_sise'")
