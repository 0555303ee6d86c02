"""Every address of the REST API, version 1, below /api/v1/."""

from csp.decorators import csp_update
from django.urls import path
from drf_spectacular.views import SpectacularAPIView, SpectacularSwaggerSplitView

from labeling.accounts import api as accounts
from labeling.annotation import api as annotation
from labeling.annotation import members_api, pools_api, reports_api, tasks_api
from labeling.conversation import api as conversation
from labeling.images import api as images
from labeling.imports import api as imports
from labeling.preferences import api as preferences
from labeling.preferences import withdrawals_api
from labeling.projects import api as projects
from labeling.quality import adjudication_api as adjudication
from labeling.quality import api as quality
from labeling.quality import gold_api
from labeling.webhooks import api as webhooks
from training.endpoints import api as endpoints
from training.features import api as features
from training.loop import api as loop
from training.registry import api as registry
from training.registry import api_files as registry_files
from training.registry import api_imports as registry_imports
from training.runs import api as runs
from training.runs import disk_api as run_disk

# Its script is a request of its own, so the policy on scripts stays strict; its page has a style element.
docs = csp_update({"style-src": ["'unsafe-inline'"]})(SpectacularSwaggerSplitView.as_view(url_name="api:schema"))

app_name = "api"
urlpatterns = [
    # What is asked for most comes first.
    path("leases/<str:lease_id>/judgement/", annotation.SubmitView.as_view(), name="submit"),
    path("projects/<slug:slug>/leases/", annotation.LeasesView.as_view(), name="leases"),
    path("leases/<str:lease_id>/draft/", annotation.DraftView.as_view(), name="draft"),
    path("leases/<str:lease_id>/renew/", annotation.RenewView.as_view(), name="renew"),
    path("leases/<str:lease_id>/report/", annotation.ReportView.as_view(), name="report"),
    path("leases/<str:lease_id>/skip/", annotation.SkipView.as_view(), name="skip"),
    path("schema/", SpectacularAPIView.as_view(), name="schema"),
    path("docs/", docs, name="docs"),
    path("auth/token/", accounts.TokenView.as_view(), name="token"),
    path("projects/", projects.ProjectsView.as_view(), name="projects"),
    path("projects/<slug:slug>/", projects.ProjectView.as_view(), name="project"),
    path("projects/<slug:slug>/members/", projects.MembersView.as_view(), name="members"),
    path("projects/<slug:slug>/members/<str:username>/", projects.MemberView.as_view(), name="member"),
    path("projects/<slug:slug>/guideline/read/", projects.GuidelineReadView.as_view(), name="read_guideline"),
    path("projects/<slug:slug>/members/<str:username>/pause/", members_api.PauseMemberView.as_view(), name="pause_member"),
    path("projects/<slug:slug>/members/<str:username>/reinstate/", members_api.ReinstateMemberView.as_view(), name="reinstate_member"),
    path("projects/<slug:slug>/members/<str:username>/set-aside/", members_api.SetAsideView.as_view(), name="set_aside"),
    path("projects/<slug:slug>/imports/", imports.ImportsView.as_view(), name="imports"),
    path("projects/<slug:slug>/imports/preview/", imports.PreviewView.as_view(), name="preview_import"),
    path("imports/<str:import_id>/", imports.ImportView.as_view(), name="import"),
    path("imports/<str:import_id>/cancel/", imports.CancelView.as_view(), name="cancel_import"),
    path("imports/<str:import_id>/resume/", imports.ResumeView.as_view(), name="resume_import"),
    path("imports/<str:import_id>/rejected.jsonl", imports.RejectedView.as_view(), name="rejected_rows"),
    path("projects/<slug:slug>/images/", images.ImagesView.as_view(), name="images"),
    path("projects/<slug:slug>/tasks/", tasks_api.TasksView.as_view(), name="tasks"),
    path("projects/<slug:slug>/tasks/assign/", tasks_api.AssignView.as_view(), name="assign_tasks"),
    path("tasks/<str:task_id>/", tasks_api.TaskView.as_view(), name="task"),
    path("projects/<slug:slug>/pools/", pools_api.PoolsView.as_view(), name="pools"),
    path("projects/<slug:slug>/pools/<str:pool_id>/", pools_api.PoolView.as_view(), name="pool"),
    path("projects/<slug:slug>/judgements/", annotation.JudgementsView.as_view(), name="judgements"),
    path("projects/<slug:slug>/reports/", reports_api.ReportsView.as_view(), name="reports"),
    path("projects/<slug:slug>/conversation/", conversation.SettingsView.as_view(), name="conversation_settings"),
    path("projects/<slug:slug>/conversations/", conversation.ConversationsView.as_view(), name="conversations"),
    path("projects/<slug:slug>/quality/", quality.QualityView.as_view(), name="quality"),
    path("projects/<slug:slug>/consensus/", quality.ConsensusView.as_view(), name="consensus"),
    path("projects/<slug:slug>/adjudications/", adjudication.AdjudicationsView.as_view(), name="adjudications"),
    path("projects/<slug:slug>/contradictions/", adjudication.ContradictionsView.as_view(), name="contradictions"),
    path("tasks/<str:task_id>/adjudication/", adjudication.AdjudicationView.as_view(), name="adjudication"),
    path("projects/<slug:slug>/gold/", gold_api.GoldListView.as_view(), name="gold"),
    path("projects/<slug:slug>/gold/candidates/", gold_api.CandidatesView.as_view(), name="gold_candidates"),
    path("gold/<str:gold_id>/", gold_api.GoldView.as_view(), name="gold_task"),
    path("projects/<slug:slug>/snapshots/", preferences.SnapshotsView.as_view(), name="snapshots"),
    path("projects/<slug:slug>/snapshots/preview/", preferences.PreviewView.as_view(), name="preview_snapshot"),
    path("freezes/<str:freeze_id>/", preferences.FreezeView.as_view(), name="freeze"),
    path("projects/<slug:slug>/withdrawals/", withdrawals_api.WithdrawalsView.as_view(), name="withdrawals"),
    path("withdrawals/<str:withdrawal_id>/undo/", withdrawals_api.UndoWithdrawalView.as_view(), name="undo_withdrawal"),
    path("projects/<slug:slug>/consent/", withdrawals_api.ConsentView.as_view(), name="consent"),
    path("projects/<slug:slug>/runs/", runs.RunsView.as_view(), name="runs"),
    path("projects/<slug:slug>/runs/disk/", run_disk.DiskView.as_view(), name="run_disk"),
    path("projects/<slug:slug>/machines/", runs.MachinesView.as_view(), name="machines"),
    path("projects/<slug:slug>/runs/estimate/", runs.RunEstimateView.as_view(), name="estimate_run"),
    path("projects/<slug:slug>/iterations/", loop.IterationsView.as_view(), name="iterations"),
    path("projects/<slug:slug>/webhooks/", webhooks.WebhooksView.as_view(), name="webhooks"),
    path("webhooks/<str:webhook_id>/", webhooks.WebhookView.as_view(), name="webhook"),
    path("webhooks/<str:webhook_id>/rotate/", webhooks.RotateView.as_view(), name="rotate_webhook"),
    path("webhooks/<str:webhook_id>/test/", webhooks.TestView.as_view(), name="test_webhook"),
    path("webhooks/<str:webhook_id>/deliveries/", webhooks.DeliveriesView.as_view(), name="deliveries"),
    path("deliveries/<str:delivery_id>/redeliver/", webhooks.RedeliverView.as_view(), name="redeliver"),
    path("judgements/<str:judgement_id>/revision/", annotation.RevisionView.as_view(), name="revision"),
    path("conversations/<str:conversation_id>/", conversation.ConversationView.as_view(), name="conversation"),
    path("conversations/<str:conversation_id>/end/", conversation.EndView.as_view(), name="end_conversation"),
    path("conversations/<str:conversation_id>/turns/", conversation.TurnsView.as_view(), name="turns"),
    path("conversations/<str:conversation_id>/turns/<int:number>/", conversation.TurnView.as_view(), name="turn"),
    path("conversations/<str:conversation_id>/turns/<int:number>/again/", conversation.AgainView.as_view(), name="turn_again"),
    path("conversations/<str:conversation_id>/turns/<int:number>/stop/", conversation.StopView.as_view(), name="turn_stop"),
    path("snapshots/<str:snapshot_id>/", preferences.SnapshotView.as_view(), name="snapshot"),
    path("snapshots/<str:snapshot_id>/card/", preferences.CardView.as_view(), name="snapshot_card"),
    path("snapshots/<str:snapshot_id>/verify/", preferences.VerifyView.as_view(), name="verify_snapshot"),
    path("snapshots/<str:snapshot_id>/diff/", preferences.DiffView.as_view(), name="snapshot_diff"),
    path(
        "snapshots/<str:snapshot_id>/<slug:split>.<str:kind>",
        preferences.SnapshotFileView.as_view(),
        name="snapshot_file",
    ),
    path("projects/<slug:slug>/endpoints/", endpoints.EndpointsView.as_view(), name="endpoints"),
    path("endpoints/<str:endpoint_id>/", endpoints.EndpointView.as_view(), name="endpoint"),
    path("projects/<slug:slug>/features/", features.FeaturesView.as_view(), name="features"),
    path("projects/<slug:slug>/features/encode/", features.EncodeView.as_view(), name="encode"),
    path("projects/<slug:slug>/features/uncertain/", features.UncertainPairsView.as_view(), name="uncertain_pairs"),
    path("projects/<slug:slug>/encoders/", features.EncodersView.as_view(), name="encoders"),
    path("encoders/<str:encoder_id>/", features.EncoderView.as_view(), name="encoder"),
    path("models/", registry.ModelsView.as_view(), name="models"),
    path("models/<str:model_id>/", registry.ModelView.as_view(), name="model"),
    path("models/<str:model_id>/archive/", registry_files.ModelArchiveView.as_view(), name="model_archive"),
    path("models/<str:model_id>/files/<path:file>", registry_files.ModelFileView.as_view(), name="model_file"),
    path("models/<str:model_id>/card/", registry.ModelCardView.as_view(), name="model_card"),
    path("models/<str:model_id>/report/", registry.ModelReportView.as_view(), name="model_report"),
    path("models/<str:model_id>/terms/", registry.ModelTermsView.as_view(), name="model_terms"),
    path("models/<str:model_id>/verify/", registry.VerifyModelView.as_view(), name="verify_model"),
    path("projects/<slug:slug>/stage-changes/", registry.StageChangesView.as_view(), name="stage_changes"),
    path("projects/<slug:slug>/lineage/", registry.LineageView.as_view(), name="lineage"),
    path(
        "projects/<slug:slug>/models/<str:model_id>/terms/", registry_files.AcceptedTermsView.as_view(), name="accepted_terms"
    ),
    path("projects/<slug:slug>/models/upload/", registry_imports.UploadModelView.as_view(), name="upload_model"),
    path("projects/<slug:slug>/model-imports/", registry_imports.ModelImportsView.as_view(), name="model_imports"),
    path("model-imports/<str:model_import_id>/", registry_imports.ModelImportView.as_view(), name="model_import"),
    path(
        "model-imports/<str:model_import_id>/cancel/", registry_imports.CancelModelImportView.as_view(), name="cancel_model_import"
    ),
    path("projects/<slug:slug>/models/import/", registry_imports.ImportModelView.as_view(), name="import_model"),
    path("runs/<str:run_id>/", runs.RunView.as_view(), name="run"),
    path("runs/<str:run_id>/events/", runs.RunEventsView.as_view(), name="run_events"),
    path("runs/<str:run_id>/explanation/", runs.RunExplanationView.as_view(), name="run_explanation"),
    path("runs/<str:run_id>/events.jsonl", run_disk.RunEventsFileView.as_view(), name="run_events_file"),
    path("runs/<str:run_id>/log/", run_disk.RunLogView.as_view(), name="run_log"),
    path("runs/<str:run_id>/checkpoints/", run_disk.CheckpointsView.as_view(), name="run_checkpoints"),
    path("runs/<str:run_id>/cancel/", runs.CancelRunView.as_view(), name="cancel_run"),
    path("runs/<str:run_id>/resume/", runs.ResumeRunView.as_view(), name="resume_run"),
    path("iterations/<str:iteration_id>/", loop.IterationView.as_view(), name="iteration"),
]
