"""The page: it says which life it has."""

from django.conf import settings
from django.http import HttpRequest, HttpResponse


def page(request: HttpRequest) -> HttpResponse:
    """Show the page."""
    life = "development" if settings.DEBUG else "production"
    style = f'<link rel="stylesheet" href="{settings.STATIC_URL}notes/page.css">'
    return HttpResponse(f"<!doctype html>{style}<h1>Notes</h1><p>This is {life}.</p>")
