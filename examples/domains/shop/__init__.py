"""A shop as a Django project: admin, login, sessions, uploads, SQLite."""
