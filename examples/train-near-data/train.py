"""Trains a small network on the digits, and leaves it in /out in the ONNX format.

It runs as an exec job, beside the data: argv is train.x, train.y.
"""
import os
import sys

import numpy
import torch

torch.manual_seed(7)
torch.set_num_threads(1)
pictures = torch.tensor(numpy.fromfile(sys.argv[1], dtype=numpy.uint8).reshape(-1, 64) / 16.0, dtype=torch.float32)
labels = torch.tensor(numpy.fromfile(sys.argv[2], dtype=numpy.uint8).astype(numpy.int64))
device = "cuda" if os.environ.get("CUDA_VISIBLE_DEVICES") and torch.cuda.is_available() else "cpu"
model = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 10)).to(device)
optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
pictures, labels = pictures.to(device), labels.to(device)
for epoch in range(60):
    for batch in torch.randperm(len(labels)).split(100):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(pictures[batch]), labels[batch])
        loss.backward()
        optimizer.step()
right = (model(pictures).argmax(1) == labels).float().mean().item()
print(f"trained on {device}: {len(labels)} pictures, {100 * right:.1f} % right")
torch.onnx.export(
    model.cpu().eval(), torch.zeros(1, 64), "/out/digits.onnx", input_names=["picture"], output_names=["scores"],
    dynamic_axes={"picture": {0: "n"}, "scores": {0: "n"}}, opset_version=13,
)
