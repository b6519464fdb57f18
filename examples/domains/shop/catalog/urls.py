"""The public pages."""

from django.urls import path

from . import views

urlpatterns = [
    path("", views.ProductList.as_view(), name="products"),
    path("products/new/", views.ProductCreate.as_view(), name="new-product"),
    path("products/<int:pk>/", views.ProductDetail.as_view(), name="product"),
    path("products/<int:pk>/basket/", views.add_to_basket, name="add-to-basket"),
    path("basket/", views.basket, name="basket"),
]
