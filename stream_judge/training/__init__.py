"""Training of tiny-llava-re, the small LLaVA that ships with the project."""
