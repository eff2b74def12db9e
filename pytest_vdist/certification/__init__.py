"""Certification in a session: what holds, what is run, what came of it, and the folder that says so."""
