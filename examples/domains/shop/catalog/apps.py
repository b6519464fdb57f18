"""The Django app `catalog`."""

from django.apps import AppConfig


class CatalogConfig(AppConfig):
    """Its name and label."""

    name = "shop.catalog"
