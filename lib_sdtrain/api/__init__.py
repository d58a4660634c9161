"""HTTP under /sdtrain/v1/: the read-only view that the tab polls, and the whole program for other programs."""
