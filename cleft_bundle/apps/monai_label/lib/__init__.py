"""Parts of the MONAI Label application, laid out as in the sample applications of MONAI Label.

Imports within it are relative: the folder is served as the package ``lib`` of a copy too.
"""
