"""The parts of a vision transformer. Images become tokens: (N, D) per example, N tokens of D features."""
