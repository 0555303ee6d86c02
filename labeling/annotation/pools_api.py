"""Pools over REST: who may be given certain tasks. For those who bring tasks in; annotators see nothing of it."""

from typing import Any

from django.shortcuts import get_object_or_404
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from labeling.accounts.models import User
from labeling.accounts.roles import READING, TRAINING
from labeling.annotation.errors import BadPool, PoolInUse
from labeling.annotation.models import Pool
from labeling.annotation.pools import figures_of_pools
from labeling.annotation.serializers import PoolSerializer
from labeling.annotation.services import change_pool, create_pool, delete_pool, empty_and_delete_pool
from labeling.annotation.services.pools import MAX_NAME, MOST_NAMED
from labeling.projects.api_access import ApiView, number_of
from labeling.projects.models import Project
from labeling.projects.serializers import KnowledgeFields
from labeling.web.api import PAGE_PARAMETERS, Refused, Text, describe, page_of, query, wrong_fields

EVERYONE = "everyone"


class NewPoolSerializer(KnowledgeFields):
    name = Text(max_length=MAX_NAME)
    people = serializers.ListField(
        child=Text(max_length=150), max_length=MOST_NAMED, required=False,
        help_text="usernames of members, for whom alone it is, instead of languages and skills",
    )  # fmt: skip


class PoolChangesSerializer(NewPoolSerializer):
    name = Text(max_length=MAX_NAME, required=False)


class PoolsView(ApiView):
    @describe("list_pools", tag="annotation", answers={200: page_of(PoolSerializer)}, errors=[404], parameters=PAGE_PARAMETERS)
    def get(self, request: Request, slug: str) -> Response:
        """The project's pools, newest first, with how many people fit and how many tasks wait."""
        project = self.project(slug, READING)
        found = Pool.objects.filter(project=project).prefetch_related("people")
        return self.page(found, PoolSerializer, figures=figures_of_pools(project))

    @describe("create_pool", tag="annotation", body=NewPoolSerializer, answers={201: PoolSerializer}, errors=[404])
    def post(self, request: Request, slug: str) -> Response:
        """Make a pool: for all who have the languages and skills, or for the people named."""
        project = self.project(slug, TRAINING)
        sent = self.parsed(NewPoolSerializer)
        try:
            pool = create_pool(project=project, **_with_accounts(sent))
        except BadPool as error:
            raise wrong_fields(error.fields) from None
        return Response(shown(pool), status=201)


class PoolView(ApiView):
    @describe("get_pool", tag="annotation", answers={200: PoolSerializer}, errors=[404])
    def get(self, request: Request, slug: str, pool_id: str) -> Response:
        return Response(shown(get_object_or_404(Pool, project=self.project(slug, READING), pk=number_of(pool_id))))

    @describe("change_pool", tag="annotation", body=PoolChangesSerializer, answers={200: PoolSerializer}, errors=[404])
    def patch(self, request: Request, slug: str, pool_id: str) -> Response:
        """Change what is given, lists as a whole. Who no longer fits keeps the tasks that they hold."""
        pool = get_object_or_404(Pool, project=self.project(slug, TRAINING), pk=number_of(pool_id))
        try:
            changed = change_pool(pool=pool, **_with_accounts(self.parsed(PoolChangesSerializer, partial=True)))
        except BadPool as error:
            raise wrong_fields(error.fields) from None
        return Response(shown(changed))

    @describe(
        "delete_pool", tag="annotation", answers={204: None}, errors=[400, 404, 409],
        parameters=[query("move_to", description="where its tasks go: everyone, or the id of another pool")],
    )  # fmt: skip
    def delete(self, request: Request, slug: str, pool_id: str) -> Response:
        """Delete a pool. 409 `pool_in_use` where it has tasks and `move_to` doesn't say where they go."""
        project = self.project(slug, TRAINING)
        pool = get_object_or_404(Pool, project=project, pk=number_of(pool_id))
        move_to = request.query_params.get("move_to", "")
        try:
            if move_to:
                to = None if move_to == EVERYONE else pool_of(project, move_to, "move_to")
                empty_and_delete_pool(pool=pool, to=to)
            else:
                delete_pool(pool=pool)
        except PoolInUse as error:
            raise Refused(error.code, str(error), status=409) from None
        except BadPool as error:
            raise wrong_fields(error.fields) from None
        return Response(status=204)


def pool_of(project: Project, id: str, field: str = "pool") -> Pool:
    """The project's pool of this id; else a 400 that names the field."""
    is_number = id.isascii() and id.isdigit() and len(id) < 19
    found = Pool.objects.filter(project=project, pk=int(id)).first() if is_number else None
    if found is None:
        raise wrong_fields({field: f"{id!r} is not a pool of this project"})
    return found


def accounts_named(names: list[str]) -> list[User]:
    """Whether they are members, the services say."""
    found = {user.username: user for user in User.objects.filter(username__in=names)}
    if unknown := [name for name in names if name not in found]:
        raise wrong_fields({"people": f"There is no account of the name {unknown[0]!r}"})
    return list(found.values())


def shown(pool: Pool) -> dict[str, Any]:
    return PoolSerializer(pool, context={"figures": figures_of_pools(pool.project)}).data


def _with_accounts(sent: dict[str, Any]) -> dict[str, Any]:
    return sent | ({"people": accounts_named(sent["people"])} if "people" in sent else {})
