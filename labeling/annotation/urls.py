from django.urls import path

from labeling.annotation import views

app_name = "annotation"
urlpatterns = [
    path("", views.bench, name="bench"),
    path("agree/", views.agree, name="agree"),
    path("guideline/", views.read, name="read"),
    path("next/", views.next_task, name="next"),
    path("leases/<int:lease_id>/draft/", views.draft, name="draft"),
    path("leases/<int:lease_id>/renew/", views.renew, name="renew"),
    path("leases/<int:lease_id>/submit/", views.submit, name="submit"),
    path("leases/<int:lease_id>/skip/", views.skip, name="skip"),
    path("leases/<int:lease_id>/report/", views.report, name="report"),
    path("history/", views.history, name="history"),
    path("history/<int:judgement_id>/", views.revise, name="revise"),
]
