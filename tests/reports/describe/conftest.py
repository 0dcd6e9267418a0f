from tests.data.conftest import dicom

__all__ = ["dicom"]
