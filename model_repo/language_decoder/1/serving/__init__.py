"""What runs inside Triton; copied into the model repository by `stream-judge export`.

Imports nothing of the worker, and only numpy, tokenizers, safetensors and onnxruntime
from outside.
"""
