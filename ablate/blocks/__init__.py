"""The built-in blocks: one file each; attention, one paper each."""
