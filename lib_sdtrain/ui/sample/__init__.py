"""The Sample sub-tab: an infotext or a form in, pictures, comparisons and grids out."""
