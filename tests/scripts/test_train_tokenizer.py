import json
import shutil

import pytest

from tests import processes


@pytest.mark.slow
def test_the_defaults_write_the_tokenizer_that_ships(root, tmp_path):
    shutil.copytree(root / "configs" / "prompts", tmp_path / "configs" / "prompts")
    done = processes.run([str(root / "scripts" / "train_tokenizer.py")], tmp_path)
    assert done.returncode == 0, done.stderr
    assert "517 tokens from 30 texts" in done.stdout
    for name in ("tokenizer.json", "tokenizer_config.json"):
        written = json.loads((tmp_path / "configs" / "tokenizer_tiny" / name).read_text())
        assert written == json.loads((root / "configs" / "tokenizer_tiny" / name).read_text()), name


@pytest.mark.slow
def test_a_folder_without_prompts_is_one_line(root, tmp_path):
    done = processes.run([str(root / "scripts" / "train_tokenizer.py"), "--prompts", "none"], tmp_path)
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1].startswith("error: none/chexpert.json")
