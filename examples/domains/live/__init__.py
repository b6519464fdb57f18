"""A Starlette application with JSON, server-sent events and a WebSocket."""
