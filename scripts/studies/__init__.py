"""Parts that the scripts of this folder share with their tests: simulations, games and counts."""
