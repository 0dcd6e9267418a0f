"""What the scripts of this folder have in common with their tests: simulations, games and counts."""
