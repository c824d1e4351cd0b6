"""Tests in a virtual machine whose kernel has zoned devices; the modules of `inside` run in it."""
