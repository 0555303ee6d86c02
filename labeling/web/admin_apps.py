from django.contrib.admin.apps import AdminConfig


class OperatorsConfig(AdminConfig):
    """The admin application with our site as its default. Apart from the site, which needs all apps loaded."""

    default_site = "labeling.web.admin_site.OperatorsSite"
