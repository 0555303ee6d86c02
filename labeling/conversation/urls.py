from django.urls import path

from labeling.conversation import views

app_name = "conversation"
urlpatterns = [
    path("", views.conversations, name="list"),
    path("<str:conversation_id>/", views.conversation, name="conversation"),
    path("<str:conversation_id>/state/", views.state, name="state"),
    path("<str:conversation_id>/turns/", views.speak, name="speak"),
    path("<str:conversation_id>/turns/<int:number>/again/", views.again, name="again"),
    path("<str:conversation_id>/turns/<int:number>/stop/", views.stop, name="stop"),
    path("<str:conversation_id>/end/", views.end, name="end"),
]
