"""The public pages; only adding a product asks for a login."""

from decimal import Decimal

from django.contrib import messages
from django.contrib.auth.mixins import LoginRequiredMixin
from django.contrib.messages.views import SuccessMessageMixin
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_POST
from django.views.generic import CreateView, DetailView, ListView

from .models import Product


class ProductList(ListView):
    """All products."""

    model = Product
    paginate_by = 50


class ProductDetail(DetailView):
    """One product with its photo."""

    model = Product


class ProductCreate(LoginRequiredMixin, SuccessMessageMixin, CreateView):
    """A form for a new product, with an upload."""

    model = Product
    fields = ("name", "price", "description", "photo")
    success_message = "%(name)s is in the shop now."


@require_POST
def add_to_basket(request: HttpRequest, pk: int) -> HttpResponse:
    """Puts one more of a product into the basket, which lives in the session."""
    product = get_object_or_404(Product, pk=pk)
    kept = request.session.get("basket", {})
    # JSON, in which sessions are kept, knows no keys but strings.
    kept[str(pk)] = kept.get(str(pk), 0) + 1
    request.session["basket"] = kept
    messages.success(request, f"{product} is in your basket.")
    return redirect("products")


def basket(request: HttpRequest) -> HttpResponse:
    """What is in the basket, and what it costs."""
    kept = request.session.get("basket", {})
    lines = [
        {"product": product, "count": count, "price": product.price * count}
        for product in Product.objects.filter(pk__in=kept)
        if (count := kept[str(product.pk)])
    ]
    total = sum((line["price"] for line in lines), Decimal(0))
    return render(request, "catalog/basket.html", {"lines": lines, "total": total})
