from django.urls import path

from labeling.preferences import console, console_compare, console_files, console_withdrawals

app_name = "preferences"
urlpatterns = [
    path("", console.snapshots, name="list"),
    path("new/", console.new_snapshot, name="new"),
    path("freezes/<int:freeze_id>/", console.freeze, name="freeze"),
    path("compare/", console_compare.compare, name="compare"),
    path("withdrawals/", console_withdrawals.withdrawals, name="withdrawals"),
    path("withdrawals/new/", console_withdrawals.new_withdrawal, name="withdraw"),
    path("withdrawals/<int:withdrawal_id>/undo/", console_withdrawals.undo, name="undo_withdrawal"),
    path("withdrawals/people/<int:user_id>/consent/", console_withdrawals.consent, name="record_consent"),
    path("<int:number>/", console.snapshot, name="detail"),
    path("<int:number>/card/", console_files.card, name="card"),
    path("<int:number>/card.md", console_files.card_file, name="card_file"),
    path("<int:number>/verify/", console_files.verification, name="verify"),
    path("<int:number>/<slug:view>.<slug:split>.<str:format>", console.download, name="download"),
]
