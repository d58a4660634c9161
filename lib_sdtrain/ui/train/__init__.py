"""The Train sub-tab."""
