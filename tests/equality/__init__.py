"""Equality with the kernel's zonefs: one probe, run on both, and a comparison of what it wrote down."""
