"""What the shop keeps in its database."""

from django.core.validators import FileExtensionValidator, MinValueValidator
from django.db import models
from django.urls import reverse


class Product(models.Model):
    """Something that can be bought."""

    name = models.CharField(max_length=100, unique=True)
    price = models.DecimalField(max_digits=8, decimal_places=2, validators=[MinValueValidator(0)])
    description = models.TextField(blank=True)
    # No HTML and no SVG: an uploaded script would run under the shop's own origin.
    photo = models.FileField(
        upload_to="photos",
        blank=True,
        validators=[FileExtensionValidator(["gif", "jpeg", "jpg", "png", "webp"])],
    )
    created = models.DateTimeField(auto_now_add=True)

    class Meta:
        """Listed by name."""

        ordering = ("name",)

    def __str__(self) -> str:
        """Its name."""
        return self.name

    def get_absolute_url(self) -> str:
        """The page of this product."""
        return reverse("product", args=[self.pk])
