"""Any PyTorch model that ``torch.fx`` can trace → our graph."""
