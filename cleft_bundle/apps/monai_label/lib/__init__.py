"""Parts of the MONAI Label application, laid out as in the sample applications of MONAI Label."""
