"""How much memory a run takes, told before it starts: played through without numbers, added up, made to fit."""
