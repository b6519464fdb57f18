"""Draws a monster for every hash: a small WSGI application without any framework."""
