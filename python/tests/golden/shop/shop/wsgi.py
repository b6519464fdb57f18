def application(environ, start_response):  # type: ignore[no-untyped-def]
    start_response("200 OK", [])
    return [b""]
