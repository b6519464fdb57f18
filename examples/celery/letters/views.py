"""A letter is asked for, and fetched when it is written."""

from __future__ import annotations

from celery.result import AsyncResult
from django.core.cache import cache
from django.http import HttpRequest, JsonResponse
from django.urls import path

from .tasks import celery, write


def ask(request: HttpRequest) -> JsonResponse:
    """Enqueue a letter."""
    task = write.delay(request.GET.get("name", "reader"))
    return JsonResponse({"id": task.id, "letter": f"/letters/{task.id}"}, status=202)


def letter(request: HttpRequest, task: str) -> JsonResponse:
    """Show a letter, if it is written."""
    result = AsyncResult(task, app=celery)
    return JsonResponse({"state": result.state, "letter": result.result if result.successful() else None})


def ticks(request: HttpRequest) -> JsonResponse:
    """Show how often beat has had something done."""
    return JsonResponse({"ticks": cache.get("ticks", 0)})


urlpatterns = [
    path("letters", ask),
    path("letters/<str:task>", letter),
    path("ticks", ticks),
]
