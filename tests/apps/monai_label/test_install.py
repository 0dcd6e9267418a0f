import pytest

from cleft_bundle.apps.monai_label.install import install
from cleft_bundle.errors import BundleError
from tests.conftest import ROOT

SOURCE = ROOT / "cleft_bundle" / "apps" / "monai_label"


@pytest.mark.parametrize("link", [False, True])
def test_the_folder_is_that_of_the_package(tmp_path, link):
    folder = install(str(tmp_path / "a" / "app"), link)
    assert sorted(path.name for path in folder.iterdir()) == ["lib", "main.py"]
    wanted = sorted(path.relative_to(SOURCE) for path in (SOURCE / "lib").rglob("*.py"))
    assert sorted(path.relative_to(folder) for path in (folder / "lib").rglob("*.py")) == wanted
    assert (folder / "main.py").is_symlink() == (folder / "lib").is_symlink() == link
    assert (folder / "main.py").read_text() == (SOURCE / "main.py").read_text()


def test_an_application_that_is_there_is_left_alone(tmp_path):
    (tmp_path / "main.py").write_text("mine")
    with pytest.raises(BundleError, match=r"has main\.py already"):
        install(str(tmp_path))
    assert (tmp_path / "main.py").read_text() == "mine"
    assert not (tmp_path / "lib").exists()
