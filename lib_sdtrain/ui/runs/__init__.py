"""The Runs sub-tab: the queue, everything that was made, one of it in full, several side by side."""
