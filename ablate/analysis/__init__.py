"""What a study's results say, as values: comparisons, effects, curves, costs, and what papers claim. No torch here."""
