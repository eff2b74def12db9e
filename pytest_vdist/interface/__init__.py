"""Interfaces that fit: signatures of a coordinator or a communicator, held against the calls of others.

Nothing here makes a coordinator, so no rank is needed.
"""
