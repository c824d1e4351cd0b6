"""Tests that need a kernel with zoned devices, and root on it: tools/vm runs them."""
