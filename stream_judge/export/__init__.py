"""From a LLaVA checkpoint to a Triton model repository."""
