"""Who gets what at every address of the site. `test_endpoint_matrix.py` holds each route to its row here.

A new route needs a row; the test fails without one and prints where it belongs. The key is the whole pattern as
Django's resolver joins it. A row says who gets through, by method; everyone else must be refused:

    "projects/<slug:slug>/runs/": Page(get=READING),                    # 404 for those who may not read
    "projects/<slug:slug>/runs/new/": Page(get=READING, post=TRAINING),  # readers who may not post get 403 or 404
    "profile/": Page(get=EVERYONE, post=EVERYONE),                      # any account; others are sent to the log-in
    "login/": Public("get", "post"),                                    # nobody is refused
    "api/v1/runs/<str:run_id>/": Api(get=READING, sees=READING),        # who does not see the row gets 404, not 403

Whatever a row doesn't name is refused: pages with 403, 404, 405 or the way to the log-in, the API with 401 to those
without a good token, 404 to those outside the project, 403 to a role or scope too low, 405 for no such method.

Callers: `anonymous`; `session`, a lead with a cookie only; `expired`, a lead's token that has run out; `read_only`, a
lead's token with the scope read; `stranger`, in no project; `admin`, staff but in no project; and the four roles.
"""

from collections.abc import Collection
from dataclasses import dataclass

from labeling.accounts import roles

MEMBERS = frozenset({"annotator", "reviewer", "engineer", "lead"})
OUTSIDE = frozenset({"stranger", "admin"})
EVERYONE = MEMBERS | OUTSIDE
ANNOTATING, READING, TRAINING, STEERING = (
    frozenset(map(str, group)) for group in (roles.ANNOTATING, roles.READING, roles.TRAINING, roles.STEERING)
)
REVIEWING = frozenset(map(str, roles.REVIEWING))
HOLDER = frozenset({"annotator"})  # the lease, judgement and token of the table are the annotator's
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")


@dataclass(frozen=True)
class Page:
    """A page for people who are logged in."""

    get: Collection[str] = ()
    post: Collection[str] = ()

    def allowed(self, method: str) -> Collection[str]:
        return {"GET": self.get, "POST": self.post}.get(method, ())


@dataclass(frozen=True)
class Public:
    """For everyone, with nothing asked."""

    methods: tuple[str, ...] = ("get",)

    def __init__(self, *methods: str) -> None:
        object.__setattr__(self, "methods", tuple(method.upper() for method in methods))


@dataclass(frozen=True)
class Api:
    """A REST call. `sees`: whom the thing exists for; 403 is only for them."""

    get: Collection[str] | None = None
    post: Collection[str] | None = None
    put: Collection[str] | None = None
    patch: Collection[str] | None = None
    delete: Collection[str] | None = None
    sees: Collection[str] = MEMBERS

    def allowed(self, method: str) -> Collection[str] | None:
        """None: there is no such method."""
        return getattr(self, method.lower())


READ = Page(get=READING)
STEER = Page(get=READING, post=STEERING)
TRAIN = Page(get=READING, post=TRAINING)
ANNOTATE = Page(get=ANNOTATING)
P = "projects/<slug:slug>/"
V1 = "api/v1/"

ROUTES: dict[str, Page | Public | Api] = {
    # --- the site -------------------------------------------------------------------------------
    "": Page(get=EVERYONE),
    "healthz": Public("get"),
    "language/": Public("post"),
    "language/<str:language>.js": Public("get"),
    "readyz": Public("get"),
    "metrics": Page(get={"admin"}),
    "login/": Public("get", "post"),
    "logout/": Public("post"),
    "docs/": Public("get"),
    **{f"docs/{name}/": Public("get") for name in ("quickstart", "annotating", "assigning", "quality", "importing", "formats", "snapshots", "exporting", "loop", "training", "client", "webhooks", "api", "operating", "glossary")},
    "profile/": Page(get=EVERYONE, post=EVERYONE),
    "profile/tokens/<int:token_id>/revoke/": Page(post=HOLDER),
    "images/<str:image_id>/": Page(get=MEMBERS),
    # --- the bench ------------------------------------------------------------------------------
    f"{P}bench/": ANNOTATE,
    f"{P}bench/next/": Page(post=ANNOTATING),
    f"{P}bench/leases/<int:lease_id>/draft/": Page(post=HOLDER),
    f"{P}bench/leases/<int:lease_id>/renew/": Page(post=HOLDER),
    f"{P}bench/leases/<int:lease_id>/submit/": Page(post=HOLDER),
    f"{P}bench/leases/<int:lease_id>/skip/": Page(post=HOLDER),
    f"{P}bench/leases/<int:lease_id>/report/": Page(post=HOLDER),
    f"{P}bench/guideline/": Page(post=ANNOTATING),
    f"{P}bench/agree/": Page(post=ANNOTATING),
    f"{P}bench/history/": ANNOTATE,
    f"{P}bench/figures/": ANNOTATE,
    f"{P}bench/consent/": Page(get=ANNOTATING, post=ANNOTATING),
    f"{P}bench/history/<int:judgement_id>/": Page(get=HOLDER, post=HOLDER),
    f"{P}bench/conversations/": Page(get=ANNOTATING, post=ANNOTATING),
    f"{P}bench/conversations/<str:conversation_id>/": Page(get=HOLDER),
    f"{P}bench/conversations/<str:conversation_id>/state/": Page(get=HOLDER),
    f"{P}bench/conversations/<str:conversation_id>/turns/": Page(post=HOLDER),
    f"{P}bench/conversations/<str:conversation_id>/turns/<int:number>/again/": Page(post=HOLDER),
    f"{P}bench/conversations/<str:conversation_id>/turns/<int:number>/stop/": Page(post=HOLDER),
    f"{P}bench/conversations/<str:conversation_id>/end/": Page(post=HOLDER),
    # --- the console ----------------------------------------------------------------------------
    "projects/new/": Page(get=EVERYONE, post=EVERYONE),
    "projects/new/preview/": Page(get=EVERYONE, post=EVERYONE),
    P: READ,
    f"{P}tasks/": STEER,
    f"{P}quality/": READ,
    f"{P}quality/<slug:pseudonym>/": READ,
    f"{P}adjudication/": Page(get=REVIEWING),
    f"{P}adjudication/mode/": Page(post=STEERING),
    f"{P}adjudication/<str:task_id>/": Page(get=REVIEWING, post=REVIEWING),
    f"{P}guidelines/notes/<int:adjudication_id>/": Page(post=STEERING),
    f"{P}gold/": Page(get=TRAINING, post=STEERING),
    f"{P}gold/new/": Page(get=TRAINING, post=STEERING),
    f"{P}gold/<int:gold_id>/": Page(get=TRAINING, post=STEERING),
    f"{P}endpoints/": READ,
    f"{P}endpoints/new/": Page(get=STEERING, post=STEERING),
    f"{P}endpoints/<int:endpoint_id>/": STEER,
    f"{P}webhooks/": Page(get=STEERING),
    f"{P}webhooks/new/": Page(get=STEERING, post=STEERING),
    f"{P}webhooks/<int:webhook_id>/": Page(get=STEERING, post=STEERING),
    f"{P}conversation/": STEER,
    f"{P}conversation/servers/": READ,
    f"{P}preview/": STEER,
    f"{P}reports/": STEER,
    f"{P}settings/": STEER,
    f"{P}state/": Page(post=STEERING),
    f"{P}people/": STEER,
    f"{P}pools/": READ,
    f"{P}pools/new/": STEER,
    f"{P}pools/<int:pool_id>/": STEER,
    f"{P}tasks/assign/": Page(post=STEERING),
    f"{P}people/<int:user_id>/": STEER,
    f"{P}people/<int:user_id>/remove/": Page(post=STEERING),
    f"{P}guidelines/": STEER,
    f"{P}guidelines/preview/": Page(post=STEERING),
    f"{P}prompts/": READ,
    f"{P}prompts/<int:prompt_id>/": READ,
    f"{P}import/": STEER,
    f"{P}import/<int:import_id>/": READ,
    f"{P}import/<int:import_id>/check/": Page(get=STEERING, post=STEERING),
    f"{P}import/<int:import_id>/drop/": Page(post=STEERING),
    f"{P}import/<int:import_id>/cancel/": Page(post=STEERING),
    f"{P}import/<int:import_id>/resume/": Page(post=STEERING),
    f"{P}import/<int:import_id>/rejected.jsonl": READ,
    f"{P}images/": TRAIN,
    f"{P}snapshots/": READ,
    f"{P}snapshots/new/": TRAIN,
    f"{P}snapshots/freezes/<int:freeze_id>/": READ,
    f"{P}snapshots/compare/": READ,
    f"{P}snapshots/withdrawals/": READ,
    f"{P}snapshots/withdrawals/new/": Page(get=STEERING, post=STEERING),
    f"{P}snapshots/withdrawals/<int:withdrawal_id>/undo/": Page(post=STEERING),
    f"{P}snapshots/withdrawals/people/<int:user_id>/consent/": Page(post=STEERING),
    f"{P}snapshots/<int:number>/": READ,
    f"{P}snapshots/<int:number>/card/": READ,
    f"{P}snapshots/<int:number>/card.md": READ,
    f"{P}snapshots/<int:number>/verify/": READ,
    f"{P}snapshots/<int:number>/<slug:view>.<slug:split>.<str:format>": READ,
    f"{P}runs/": READ,
    f"{P}runs/new/": TRAIN,
    f"{P}runs/estimate/": Page(post=TRAINING),
    f"{P}runs/explain/": TRAIN,
    f"{P}runs/compare/": READ,
    f"{P}runs/disk/": READ,
    f"{P}runs/<int:run_id>/": READ,
    f"{P}runs/<int:run_id>/events/": READ,
    f"{P}runs/<int:run_id>/report/": READ,
    f"{P}runs/<int:run_id>/log/": READ,
    f"{P}runs/<int:run_id>/events.jsonl": READ,
    f"{P}runs/<int:run_id>/checkpoints/delete/": Page(post=STEERING),
    f"{P}runs/<int:run_id>/cancel/": Page(post=TRAINING),
    f"{P}runs/<int:run_id>/resume/": Page(post=TRAINING),
    f"{P}models/": READ,
    f"{P}models/import/": TRAIN,
    f"{P}models/import/<int:model_import_id>/": READ,
    f"{P}models/import/<int:model_import_id>/cancel/": Page(post=TRAINING),
    f"{P}models/lineage/": READ,
    f"{P}models/stages/": READ,
    f"{P}models/<int:model_id>/": TRAIN,
    f"{P}models/<int:model_id>/archive.tar": Page(get=TRAINING),
    f"{P}models/<int:model_id>/files/<path:file>": Page(get=TRAINING),
    f"{P}models/<int:model_id>/card/": READ,
    f"{P}models/<int:model_id>/card.md": READ,
    f"{P}models/<int:model_id>/terms/": STEER,
    f"{P}models/<int:model_id>/terms/accept/": Page(post=STEERING),
    f"{P}models/<int:model_id>/verify/": READ,
    f"{P}features/": TRAIN,
    f"{P}features/measure/": Page(post=TRAINING),
    f"{P}iterations/": READ,
    f"{P}iterations/new/": TRAIN,
    f"{P}iterations/<int:number>/": READ,
    f"{P}iterations/<int:number>/proceed/": Page(post=TRAINING),
    f"{P}iterations/<int:number>/retry/": Page(post=TRAINING),
    f"{P}iterations/<int:number>/cancel/": Page(post=TRAINING),
    # --- REST -----------------------------------------------------------------------------------
    f"{V1}schema/": Public("get"),
    f"{V1}docs/": Public("get"),
    f"{V1}auth/token/": Public("post"),
    f"{V1}projects/": Api(get=EVERYONE, post=EVERYONE, sees=EVERYONE),
    f"{V1}{P}": Api(get=MEMBERS, patch=STEERING),
    f"{V1}{P}members/": Api(get=STEERING, post=STEERING),
    f"{V1}{P}members/<str:username>/": Api(patch=STEERING),
    f"{V1}{P}members/<str:username>/pause/": Api(post=STEERING),
    f"{V1}{P}members/<str:username>/reinstate/": Api(post=STEERING),
    f"{V1}{P}members/<str:username>/set-aside/": Api(post=STEERING),
    f"{V1}{P}imports/": Api(get=READING, post=TRAINING),
    f"{V1}{P}imports/preview/": Api(post=TRAINING),
    f"{V1}imports/<str:import_id>/": Api(get=READING, sees=READING),
    f"{V1}imports/<str:import_id>/cancel/": Api(post=TRAINING, sees=READING),
    f"{V1}imports/<str:import_id>/resume/": Api(post=TRAINING, sees=READING),
    f"{V1}imports/<str:import_id>/rejected.jsonl": Api(get=READING, sees=READING),
    f"{V1}{P}images/": Api(get=MEMBERS, post=TRAINING),
    f"{V1}{P}tasks/": Api(get=TRAINING, post=TRAINING),
    f"{V1}{P}tasks/assign/": Api(post=TRAINING),
    f"{V1}tasks/<str:task_id>/": Api(get=TRAINING, patch=TRAINING),
    f"{V1}{P}pools/": Api(get=READING, post=TRAINING),
    f"{V1}{P}pools/<str:pool_id>/": Api(get=READING, patch=TRAINING, delete=TRAINING),
    f"{V1}{P}guideline/read/": Api(put=ANNOTATING),
    f"{V1}{P}leases/": Api(post=ANNOTATING),
    f"{V1}{P}judgements/": Api(get=MEMBERS),
    f"{V1}{P}endpoints/": Api(get=READING, post=STEERING),
    f"{V1}endpoints/<str:endpoint_id>/": Api(get=READING, patch=STEERING, sees=READING),
    f"{V1}{P}webhooks/": Api(get=STEERING, post=STEERING),
    f"{V1}webhooks/<str:webhook_id>/": Api(get=STEERING, patch=STEERING, delete=STEERING, sees=STEERING),
    f"{V1}webhooks/<str:webhook_id>/rotate/": Api(post=STEERING, sees=STEERING),
    f"{V1}webhooks/<str:webhook_id>/test/": Api(post=STEERING, sees=STEERING),
    f"{V1}webhooks/<str:webhook_id>/deliveries/": Api(get=STEERING, sees=STEERING),
    f"{V1}deliveries/<str:delivery_id>/redeliver/": Api(post=STEERING, sees=STEERING),
    f"{V1}{P}conversation/": Api(get=READING, patch=STEERING),
    f"{V1}{P}conversations/": Api(get=ANNOTATING, post=ANNOTATING),
    f"{V1}conversations/<str:conversation_id>/": Api(get=HOLDER, sees=HOLDER),
    f"{V1}conversations/<str:conversation_id>/end/": Api(post=HOLDER, sees=HOLDER),
    f"{V1}conversations/<str:conversation_id>/turns/": Api(post=HOLDER, sees=HOLDER),
    f"{V1}conversations/<str:conversation_id>/turns/<int:number>/": Api(get=HOLDER, sees=HOLDER),
    f"{V1}conversations/<str:conversation_id>/turns/<int:number>/again/": Api(post=HOLDER, sees=HOLDER),
    f"{V1}conversations/<str:conversation_id>/turns/<int:number>/stop/": Api(post=HOLDER, sees=HOLDER),
    f"{V1}{P}quality/": Api(get=READING),
    f"{V1}{P}consensus/": Api(get=READING),
    f"{V1}{P}reports/": Api(get=READING),
    f"{V1}{P}adjudications/": Api(get=READING),
    f"{V1}{P}contradictions/": Api(post=TRAINING),
    f"{V1}tasks/<str:task_id>/adjudication/": Api(get=REVIEWING, post=REVIEWING),
    f"{V1}{P}gold/": Api(get=TRAINING, post=TRAINING),
    f"{V1}{P}gold/candidates/": Api(get=TRAINING),
    f"{V1}gold/<str:gold_id>/": Api(patch=TRAINING, sees=TRAINING),
    f"{V1}{P}snapshots/": Api(get=READING, post=TRAINING),
    f"{V1}{P}snapshots/preview/": Api(post=TRAINING),
    f"{V1}freezes/<str:freeze_id>/": Api(get=READING, sees=READING),
    f"{V1}{P}withdrawals/": Api(get=READING, post=STEERING),
    f"{V1}withdrawals/<str:withdrawal_id>/undo/": Api(post=STEERING, sees=READING),
    f"{V1}{P}consent/": Api(get=ANNOTATING, put=ANNOTATING),
    f"{V1}{P}runs/": Api(get=READING, post=TRAINING),
    f"{V1}{P}runs/disk/": Api(get=READING),
    f"{V1}{P}runs/estimate/": Api(post=TRAINING),
    f"{V1}{P}machines/": Api(get=READING),
    f"{V1}{P}features/": Api(get=READING),
    f"{V1}{P}features/encode/": Api(post=TRAINING),
    f"{V1}{P}features/uncertain/": Api(get=TRAINING),
    f"{V1}{P}encoders/": Api(get=READING, post=TRAINING),
    f"{V1}encoders/<str:encoder_id>/": Api(get=READING, patch=TRAINING, delete=TRAINING, sees=READING),
    f"{V1}{P}iterations/": Api(get=READING, post=TRAINING),
    f"{V1}leases/<str:lease_id>/draft/": Api(put=HOLDER, sees=HOLDER),
    f"{V1}leases/<str:lease_id>/renew/": Api(post=HOLDER, sees=HOLDER),
    f"{V1}leases/<str:lease_id>/skip/": Api(post=HOLDER, sees=HOLDER),
    f"{V1}leases/<str:lease_id>/report/": Api(post=HOLDER, sees=HOLDER),
    f"{V1}leases/<str:lease_id>/judgement/": Api(post=HOLDER, sees=HOLDER),
    f"{V1}judgements/<str:judgement_id>/revision/": Api(post=HOLDER, sees=HOLDER),
    f"{V1}snapshots/<str:snapshot_id>/card/": Api(get=READING, sees=READING),
    f"{V1}snapshots/<str:snapshot_id>/verify/": Api(get=READING, sees=READING),
    f"{V1}snapshots/<str:snapshot_id>/diff/": Api(get=READING, sees=READING),
    f"{V1}snapshots/<str:snapshot_id>/": Api(get=READING, sees=READING),
    f"{V1}snapshots/<str:snapshot_id>/<slug:split>.<str:kind>": Api(get=READING, sees=READING),
    f"{V1}models/": Api(get=EVERYONE, post={"admin"}, sees=EVERYONE),
    f"{V1}models/<str:model_id>/": Api(get=READING, patch=TRAINING, sees=READING),
    f"{V1}models/<str:model_id>/archive/": Api(get=TRAINING, sees=READING),
    f"{V1}models/<str:model_id>/files/<path:file>": Api(get=TRAINING, sees=READING),
    f"{V1}models/<str:model_id>/card/": Api(get=READING, sees=READING),
    f"{V1}models/<str:model_id>/report/": Api(get=READING, sees=READING),
    f"{V1}models/<str:model_id>/terms/": Api(put=STEERING, sees=READING),
    f"{V1}models/<str:model_id>/verify/": Api(get=READING, sees=READING),
    f"{V1}{P}models/<str:model_id>/terms/": Api(get=READING, post=STEERING, sees=MEMBERS),
    f"{V1}{P}models/import/": Api(post=TRAINING),
    f"{V1}{P}models/upload/": Api(post=TRAINING),
    f"{V1}{P}model-imports/": Api(get=READING),
    f"{V1}model-imports/<str:model_import_id>/": Api(get=READING, sees=READING),
    f"{V1}model-imports/<str:model_import_id>/cancel/": Api(post=TRAINING, sees=READING),
    f"{V1}{P}lineage/": Api(get=READING),
    f"{V1}{P}stage-changes/": Api(get=READING),
    f"{V1}runs/<str:run_id>/": Api(get=READING, sees=READING),
    f"{V1}runs/<str:run_id>/events/": Api(get=READING, sees=READING),
    f"{V1}runs/<str:run_id>/events.jsonl": Api(get=READING, sees=READING),
    f"{V1}runs/<str:run_id>/log/": Api(get=READING, sees=READING),
    f"{V1}runs/<str:run_id>/checkpoints/": Api(delete=STEERING, sees=READING),
    f"{V1}runs/<str:run_id>/explanation/": Api(get=READING, sees=READING),
    f"{V1}runs/<str:run_id>/cancel/": Api(post=TRAINING, sees=READING),
    f"{V1}runs/<str:run_id>/resume/": Api(post=TRAINING, sees=READING),
    f"{V1}iterations/<str:iteration_id>/": Api(get=READING, sees=READING),
}
