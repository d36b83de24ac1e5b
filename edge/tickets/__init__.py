"""Session tickets: where their keys come from, how they turn, and who has them."""
