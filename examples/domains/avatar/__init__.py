"""A Flask application that gives every name a monster, drawn by another site."""
