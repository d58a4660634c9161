"""How good toybox is, and what training does to it: numbers that a judge reads from pictures, and those pictures."""
