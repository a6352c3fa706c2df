"""Drawn products and the texts about them: for the demo, training and evaluation."""
