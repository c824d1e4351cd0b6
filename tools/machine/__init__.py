"""A virtual machine with a kernel that knows zoned devices, for tools/vm and the tests: docs/vm.md.

``specs`` (pure) and ``errors`` lie lowest; ``packages``, ``initramfs``, ``qemu`` and ``protocol`` know nothing of one
another; ``session`` puts them together, ``server`` keeps a session for other processes. ``guest`` runs inside.
"""
