"""The products in the admin."""

from django.contrib import admin

from .models import Product


@admin.register(Product)
class ProductAdmin(admin.ModelAdmin):
    """A list with search, and Django's own form."""

    list_display = ("name", "price", "photo", "created")
    search_fields = ("name", "description")
