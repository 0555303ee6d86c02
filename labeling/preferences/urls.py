from django.urls import path

from labeling.preferences import console

app_name = "preferences"
urlpatterns = [
    path("", console.snapshots, name="list"),
    path("new/", console.new_snapshot, name="new"),
    path("<int:number>/", console.snapshot, name="detail"),
    path("<int:number>/<slug:view>.<slug:split>.<slug:format>", console.download, name="download"),
]
