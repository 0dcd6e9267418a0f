"""MONAI Label's datastores for radiographs with classification labels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from monailabel.datastore.dicom import DICOMWebDatastore
from monailabel.datastore.local import DataModel, ImageLabelModel, LocalDatastore
from monailabel.interfaces.datastore import DefaultLabelTag
from monailabel.interfaces.exception import ImageNotFoundException
from pydicom.dataset import Dataset

from cleft_bundle.errors import BundleError

from .labels import read_label
from .model import ServedModel
from .refusals import refusals

#: What the local datastore takes for images, unless MONAI_LABEL_DATASTORE_FILE_EXT names others.
EXTENSIONS = ("*.dcm", "*.dicom", "*.png", "*.jpg", "*.jpeg", "*.tif", "*.tiff", "*.nii", "*.nii.gz")
#: What the DICOMweb datastore lists, unless MONAI_LABEL_DICOMWEB_SEARCH_FILTER names something else.
MODALITIES = ("CR", "DX", "MG")


class RadiographDatastore(LocalDatastore):
    """A folder of radiographs; final labels are checked against the classes of the model before they are stored.

    Args:
        path: the folder.
        model: what is served.
        extensions: patterns of image files.
        auto_reload: watch the folder.
        read_only: do not look for new files.
    """

    def __init__(
        self,
        path: str,
        model: ServedModel,
        extensions: Sequence[str] = EXTENSIONS,
        auto_reload: bool = True,
        read_only: bool = False,
    ) -> None:
        self._model = model
        super().__init__(path, extensions=extensions, auto_reload=auto_reload, read_only=read_only)

    @property
    def folder(self) -> str:
        """Folder of the images and of what is known of them."""
        return self._datastore_path

    def save_label(self, image_id: str, label_filename: str, label_tag: str, label_info: dict[str, Any]) -> str:
        """Store a label; see :func:`check_label` for what is refused."""
        with refusals():
            check_label(label_filename, label_tag, self._model)
            return super().save_label(image_id, label_filename, label_tag, label_info)

    def _list_files(self, path: str, patterns: Sequence[str]) -> dict[str, str]:
        """Labels that were put into a folder of labels by hand are JSON files."""
        images = Path(path).resolve() == Path(self._datastore.image_path()).resolve()
        return super()._list_files(path, patterns if images else [*patterns, "*.json"])


class RadiographDICOMweb(DICOMWebDatastore):
    """Series of a PACS, read as DICOM files; labels stay in the local cache, since a PACS takes segmentations only.

    Args:
        client: of the PACS.
        model: what is served.
        filters: QIDO-RS filters of series; what any of them finds is listed.
        cache_path: folder of files and labels; None: in the user's home.
        fetch_by_frame: see MONAI Label.
    """

    def __init__(
        self,
        client: Any,
        model: ServedModel,
        filters: Sequence[dict[str, Any]],
        cache_path: str | None = None,
        fetch_by_frame: bool = False,
    ) -> None:
        self._model = model
        self._filters = list(filters)
        super().__init__(client, {}, cache_path, fetch_by_frame, convert_to_nifti=False)

    @property
    def folder(self) -> str:
        """The cache, where downloaded files and labels are."""
        return self._datastore_path

    def list_images(self) -> list[str]:
        """UIDs of the series that the filters find, each once."""
        found = [series for one in self._filters for series in self._client.search_for_series(search_filters=one)]
        return list(dict.fromkeys(str(Dataset.from_json(series)["SeriesInstanceUID"].value) for series in found))

    def get_image_uri(self, image_id: str) -> str:
        """The folder of a series, downloaded where it is not there yet; "" where the PACS does not have it."""
        known = image_id in self._datastore.objects
        if not known and image_id not in self.list_images():
            return ""
        folder = super().get_image_uri(image_id)
        if not known:
            self._datastore.objects[image_id] = ImageLabelModel(image=DataModel(info={"name": image_id}))
            self._update_datastore_file()
        files = [str(file) for file in Path(folder).iterdir()]
        return files[0] if len(files) == 1 else folder

    def save_label(  # MONAI Label's own class has one argument more than its base
        self, image_id: str, label_filename: str, label_tag: str, label_info: dict[str, Any], label_id: str = ""
    ) -> str:
        """Store a label; see :func:`check_label` for what is refused."""
        with refusals():
            check_label(label_filename, label_tag, self._model)
            if not self.get_image_uri(image_id):
                raise ImageNotFoundException(f"Image {image_id} not found")
            return LocalDatastore.save_label(self, image_id, label_filename, label_tag, label_info)

    def get_labeled_images(self, label_tag: str | None = None, labels: list[str] | None = None) -> list[str]:
        """Series that have a final label."""
        return LocalDatastore.get_labeled_images(self, label_tag, labels)

    def get_unlabeled_images(self, label_tag: str | None = None, labels: list[str] | None = None) -> list[str]:
        """Series that have none."""
        labelled = set(self.get_labeled_images())
        return [image for image in self.list_images() if image not in labelled]

    def get_label_uri(self, label_id: str, label_tag: str, image_id: str = "") -> str:
        """The file of a label."""
        return LocalDatastore.get_label_uri(self, label_id, label_tag)

    def datalist(self, full_path: bool = True) -> list[dict[str, Any]]:
        """Image and label of each series that has a final label."""
        tag = DefaultLabelTag.FINAL.value
        return [
            {"image": self.get_image_uri(image), "label": self.get_label_uri(image, tag)}
            for image in self.get_labeled_images()
        ]


def check_label(file: str, tag: str, model: ServedModel) -> None:
    """Refuse a final label that is none of the served classes.

    Args:
        file: the label.
        tag: ``final`` is checked; what a model has predicted is stored as ``original``.
        model: what is served.

    Raises:
        BundleError: what is wrong with it.
    """
    if tag != DefaultLabelTag.FINAL.value:
        return
    if Path(file).suffix != ".json":
        raise BundleError(
            f"a label of this application is a JSON file, see docs/monai_label.md; got {Path(file).suffix}"
        )
    classifier = model.classifier
    try:
        read_label(file, classifier.class_names, classifier.task)
    except BundleError as error:
        raise BundleError(str(error).removeprefix(f"label {file}: ")) from error
