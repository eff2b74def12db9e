"""Calls of torch.distributed in a process group, as data: how a rank makes them, and what is right."""
