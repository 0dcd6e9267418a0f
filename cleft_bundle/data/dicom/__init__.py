"""DICOM: elements, header, decoding, pixels, writing and results."""
