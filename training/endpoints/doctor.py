"""Whether the endpoints in use answer: one finding each."""

from collections.abc import Iterator

from labeling.web.doctor import GOOD, WARNING, Finding
from training.endpoints.errors import Unreachable
from training.endpoints.models import Endpoint
from training.endpoints.services import try_endpoint


def examine_endpoints() -> Iterator[Finding]:
    for endpoint in Endpoint.objects.filter(is_active=True).select_related("project").order_by("pk"):
        name = f"endpoint {endpoint.project.slug}/{endpoint.name}"
        try:
            yield Finding(name, GOOD, try_endpoint(endpoint))
        except Unreachable as error:
            yield Finding(name, WARNING, str(error), "start its server, or retire the endpoint on the page Endpoints")
