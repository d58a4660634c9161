"""What training costs: in turn with a plain loop of what stock trainers do, and with and without saved states."""
