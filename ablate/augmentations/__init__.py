"""One random change of training images a file; the contract is in ablate.data.augment."""
