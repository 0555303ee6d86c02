"""Included by labeling.projects.urls, within its namespace."""

from django.urls import path

from labeling.annotation import console, console_people, console_pools

urlpatterns = [
    path("new/preview/", console.new_preview, name="new_preview"),
    path("<slug:slug>/preview/", console.preview, name="preview"),
    path("<slug:slug>/people/<int:user_id>/", console_people.person, name="person"),
    path("<slug:slug>/pools/", console_pools.pools, name="pools"),
    path("<slug:slug>/pools/new/", console_pools.new_pool, name="new_pool"),
    path("<slug:slug>/pools/<int:pool_id>/", console_pools.one_pool, name="pool"),
    path("<slug:slug>/tasks/assign/", console_pools.assign, name="assign"),
    path("<slug:slug>/reports/", console.reports, name="reports"),
]
