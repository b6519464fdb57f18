"""The products: list, detail, form with upload, basket."""
