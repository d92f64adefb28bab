"""The data sets, one file each; :func:`ablate.data.dataset.registry` finds them."""
