"""Virtual machines for tests of what a test machine rarely has: a NIC to spare, and IPVS in its kernel.

`fetch.sh` downloads Debian's kernel, QEMU and a few programs; `parts` finds them; `image` makes a small
initramfs of them; `init` is its first process; `machine` boots it and runs commands in it. The machines are
emulated: they need neither root nor KVM, and their speed says nothing.
"""
