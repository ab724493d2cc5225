"""Calibration: weights are rounded by what that does to the outputs on real activations."""
