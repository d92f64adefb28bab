"""From ``data:`` in a spec to batches. Data sets are and augmentations have packages of their own."""
