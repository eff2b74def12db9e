"""Collectives and tensor dicts among ranks that share memory, on primitives of the operating system alone.

The data lie in memory that has no name (`memfd_create`): its descriptor goes to the other ranks over Unix
sockets, so nothing is left behind however a process ends. Ranks wait for each other on these sockets. What
a rank wrote before it sent is there for the one that has received, on every CPU: both calls take the lock of
the socket, and nobody looks at memory to learn whether it is ready.
"""
