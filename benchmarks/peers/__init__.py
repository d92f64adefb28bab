"""Other ways to train the same networks on the same images: what `benchmarks/training.py` holds the trainer against.

Each module is one way, run in a process of its own (``python -m peers.NAME --model … --data …``, in `benchmarks/`),
and prints one line of JSON, a :class:`peers.common.Seen`. None of them but `ours` imports ``ablate``.
"""
