"""A new project grows as Django's tutorial has it grow, while `manage.py runserver` runs all the time."""

from __future__ import annotations

import re
from pathlib import Path

import httpx
import pytest
from development_server import install, manage, runserver, start_project
from watching import PATIENCE, until

pytestmark = pytest.mark.once

FIRST_VIEW = """
from django.http import HttpResponse

def index(request):
    return HttpResponse("Nothing is asked yet.")
"""
POLLS_URLS = """
from django.urls import path
from . import views

app_name = "polls"
urlpatterns = [path("", views.index, name="index")]
"""
URLS = """
from django.contrib import admin
from django.urls import include, path

urlpatterns = [path("polls/", include("polls.urls")), path("admin/", admin.site.urls)]
"""
MODELS = """
from django.db import models

class Question(models.Model):
    text = models.CharField(max_length=200)
    asked = models.DateTimeField(auto_now_add=True)

    def __str__(self):
        return self.text

class Answer(models.Model):
    question = models.ForeignKey(Question, on_delete=models.CASCADE)
    text = models.CharField(max_length=200)
    votes = models.IntegerField(default=0)
"""
ADMIN = """
from django.contrib import admin
from .models import Answer, Question

class Answers(admin.TabularInline):
    model = Answer
    extra = 2

@admin.register(Question)
class QuestionAdmin(admin.ModelAdmin):
    inlines = [Answers]
    list_display = ["text", "asked"]
"""
VIEWS = """
from django.db.models import F
from django.http import HttpResponseRedirect
from django.shortcuts import get_object_or_404, render
from django.urls import reverse
from django.views import generic
from .models import Question

class Index(generic.ListView):
    model = Question

class Detail(generic.DetailView):
    model = Question

class Results(generic.DetailView):
    model = Question
    template_name = "polls/results.html"

def vote(request, pk):
    question = get_object_or_404(Question, pk=pk)
    chosen = question.answer_set.filter(pk=request.POST.get("answer", 0))
    if not chosen.update(votes=F("votes") + 1):
        return render(request, "polls/question_detail.html", {"question": question, "wrong": "Choose one."})
    return HttpResponseRedirect(reverse("polls:results", args=(pk,)))
"""
MORE_URLS = """
from django.urls import path
from . import views

app_name = "polls"
urlpatterns = [
    path("", views.Index.as_view(), name="index"),
    path("<int:pk>/", views.Detail.as_view(), name="detail"),
    path("<int:pk>/results/", views.Results.as_view(), name="results"),
    path("<int:pk>/vote/", views.vote, name="vote"),
]
"""
TEMPLATES = {
    "question_list.html": (
        '{% load static %}<link rel="stylesheet" href="{% static "polls/style.css" %}">'
        '{% for question in question_list %}<a href="{% url "polls:detail" question.pk %}">{{ question }}</a>'
        "{% empty %}No questions.{% endfor %}"
    ),
    "question_detail.html": (
        '<h1>{{ question }}</h1>{{ wrong }}<form method="post" action="{% url "polls:vote" question.pk %}">'
        "{% csrf_token %}{% for answer in question.answer_set.all %}"
        '<input type="radio" name="answer" value="{{ answer.pk }}">{{ answer.text }}{% endfor %}'
        '<input type="submit"></form>'
    ),
    "results.html": (
        "{% for answer in question.answer_set.all %}{{ answer.text }}: {{ answer.votes }};{% endfor %}"
    ),
}


def token(page: httpx.Response) -> str:
    found = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', page.text)
    assert found, page.text
    return found[1]


def test_a_project_grows_from_its_first_view_to_its_last_style_sheet(tmp_path: Path) -> None:
    project = start_project(tmp_path)
    polls = project / "polls"
    with runserver(project) as server, httpx.Client(trust_env=False, timeout=PATIENCE) as client:
        client.base_url = httpx.URL(server.base)

        def until_shown(path: str, text: str) -> None:
            until(lambda: text in client.get(path).text)

        until_shown("/", "The install worked successfully")

        # A view of an application of its own.
        manage(project, "startapp", "polls")
        (polls / "views.py").write_text(FIRST_VIEW)
        (polls / "urls.py").write_text(POLLS_URLS)
        (project / "mysite/urls.py").write_text(URLS)
        until_shown("/polls/", "Nothing is asked yet.")

        # Models, their tables, and an administrator.
        (polls / "models.py").write_text(MODELS)
        install(project, "polls")
        manage(project, "makemigrations", "polls")
        manage(project, "migrate")
        user = {"DJANGO_SUPERUSER_USERNAME": "admin", "DJANGO_SUPERUSER_EMAIL": "admin@example.com"}
        manage(project, "createsuperuser", "--noinput", DJANGO_SUPERUSER_PASSWORD="only for tests", **user)
        (polls / "admin.py").write_text(ADMIN)
        until_shown("/admin/login/", "Log in")
        login = {"username": "admin", "password": "only for tests", "next": "/admin/"}
        page = client.get("/admin/login/")
        answer = client.post("/admin/login/", data={**login, "csrfmiddlewaretoken": token(page)})
        assert (answer.status_code, answer.headers["location"]) == (302, "/admin/")
        until_shown("/admin/", "Questions")

        # A question with two answers, by the administration.
        page = client.get("/admin/polls/question/add/")
        form = {
            "csrfmiddlewaretoken": token(page),
            "text": "How deep do turtles go?",
            "answer_set-TOTAL_FORMS": "2",
            "answer_set-INITIAL_FORMS": "0",
            "answer_set-0-text": "All the way down",
            "answer_set-0-votes": "0",
            "answer_set-1-text": "To the reef",
            "answer_set-1-votes": "0",
        }
        assert client.post("/admin/polls/question/add/", data=form).status_code == 302

        # Templates, generic views and a form.
        templates = polls / "templates/polls"
        templates.mkdir(parents=True)
        for name, text in TEMPLATES.items():
            (templates / name).write_text(text)
        (polls / "views.py").write_text(VIEWS)
        (polls / "urls.py").write_text(MORE_URLS)
        until_shown("/polls/", "How deep do turtles go?")
        page = client.get("/polls/1/")
        sent = {"csrfmiddlewaretoken": token(page)}
        assert "Choose one." in client.post("/polls/1/vote/", data=sent).text
        voted = client.post("/polls/1/vote/", data={**sent, "answer": "1"})
        assert voted.headers["location"] == "/polls/1/results/"
        assert client.get("/polls/1/results/").text == "All the way down: 1;To the reef: 0;"

        # A style sheet; no command collects it here. Django looks for such directories at its start, so the
        # tutorial has the server started again; a save is that.
        static = polls / "static/polls"
        static.mkdir(parents=True)
        (static / "style.css").write_text("a { color: green }\n")
        (polls / "views.py").write_text(VIEWS + "\n")
        until(lambda: client.get("/static/polls/style.css").status_code == 200)
        assert '"/static/polls/style.css"' in client.get("/polls/").text
        assert client.get("/static/admin/css/base.css").status_code == 200

        # What the tutorial tests, by the project's own runner, beside the server that runs.
        manage(project, "check")
        assert "Traceback" not in server.output()
