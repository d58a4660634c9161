"""The Dataset sub-tab: the pictures of a run as training will use them."""
