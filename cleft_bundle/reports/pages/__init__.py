"""The frame of the HTML reports: one skeleton and style, pictures that stand within the page, thumbnails."""

from cleft_bundle.reports.pages.page import write_page
from cleft_bundle.reports.pages.pictures import COLOURS, GREY, draw, thumbnail

__all__ = ["COLOURS", "GREY", "draw", "thumbnail", "write_page"]
