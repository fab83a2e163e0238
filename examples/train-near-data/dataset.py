"""Writes scikit-learn's digits: pictures of 8 x 8 bytes, as records of 64 bytes.

    python3 dataset.py DIRECTORY

makes train.x (pictures), train.y (their labels, a byte each), and test.x and test.y.
"""
import pathlib
import sys

import numpy
from sklearn.datasets import load_digits

out = pathlib.Path(sys.argv[1])
out.mkdir(parents=True, exist_ok=True)
digits = load_digits()
pictures = digits.images.reshape(-1, 64).astype(numpy.uint8)
labels = digits.target.astype(numpy.uint8)
order = numpy.random.default_rng(7).permutation(len(labels))
for name, part in (("train", order[:1500]), ("test", order[1500:])):
    (out / f"{name}.x").write_bytes(pictures[part].tobytes())
    (out / f"{name}.y").write_bytes(labels[part].tobytes())
    print(name, len(part))
