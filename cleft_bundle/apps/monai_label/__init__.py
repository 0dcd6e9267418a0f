"""The MONAI Label application: a folder that ``monailabel start_server --app`` serves."""
