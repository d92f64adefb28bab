"""ablate: certified architecture ablations."""
