from django.urls import path

from training.loop import console

app_name = "loop"
urlpatterns = [
    path("", console.iterations, name="list"),
    path("new/", console.new_iteration, name="new"),
    path("<int:number>/", console.iteration, name="detail"),
    *(path(f"<int:number>/{action}/", console.act, {"action": action}, name=action) for action in console.ACTIONS),
]
