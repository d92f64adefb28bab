"""The data sets, one file each; :func:`ablate.dataset.registry` finds them."""
