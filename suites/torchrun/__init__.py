"""Models over several ranks: on warm ranks, and as scripts that torchrun starts."""
