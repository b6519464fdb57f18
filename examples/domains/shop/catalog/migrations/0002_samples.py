"""Three products, so that a new shop is not empty."""

from decimal import Decimal

from django.apps.registry import Apps
from django.db import migrations
from django.db.backends.base.schema import BaseDatabaseSchemaEditor

SAMPLES = [
    ("Comb", "4.50", "Cellulose acetate. No turtle was harmed."),
    ("Sea chart", "29.00", "The currents of the Indian Ocean, printed on linen."),
    ("Snorkel", "17.90", "For looking at turtles from above."),
]


def add_samples(apps: Apps, _: BaseDatabaseSchemaEditor) -> None:
    """Adds those that are not there."""
    product = apps.get_model("catalog", "Product")
    for name, price, description in SAMPLES:
        values = {"price": Decimal(price), "description": description}
        product.objects.get_or_create(name=name, defaults=values)


class Migration(migrations.Migration):
    """Run after the table exists; what it added stays when it is taken back."""

    dependencies = [("catalog", "0001_initial")]

    operations = [migrations.RunPython(add_samples, migrations.RunPython.noop)]
