"""Packages that leave the machine: exported classifiers, the bundle's zip, MLflow models."""

from cleft_bundle.packaging.export import FILES, FORMS, describe, export_classifier
from cleft_bundle.packaging.hub_dual_encoder import export_dual_encoder
from cleft_bundle.packaging.package import package_bundle

__all__ = ["FILES", "FORMS", "describe", "export_classifier", "export_dual_encoder", "package_bundle"]
