"""For Django projects: ``"hawksbill.django"`` in ``INSTALLED_APPS``, before ``django.contrib.staticfiles``.

It brings system checks of what in the settings does not fit a gateway (``manage.py check --tag hawksbill``).
``"hawksbill"`` in ``INSTALLED_APPS`` means the same.
"""
