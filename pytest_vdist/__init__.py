"""pytest plugin and conformance suite for PyTorch device communicators."""
